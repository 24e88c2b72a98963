import { expect, test } from 'vitest'
import { SseParser } from '../src/api/sse'
import { readEvent } from '../src/api/contracts'

const STREAM = 'retry: 2000\n\nid: 1-0\ndata: {"a":1}\n\n:keepalive\n\nid: 2-0\r\ndata: x\r\ndata: y\r\n\r\nevent: error\ndata: z\n\n'

test('frames come whole, wherever the stream is cut', () => {
  const whole = new SseParser().feed(STREAM)
  expect(whole).toEqual([
    { id: '1-0', event: 'message', data: '{"a":1}' },
    { id: '2-0', event: 'message', data: 'x\ny' },
    { id: null, event: 'error', data: 'z' },
  ])
  for (let cut = 0; cut <= STREAM.length; cut++) {
    const parser = new SseParser()
    expect([...parser.feed(STREAM.slice(0, cut)), ...parser.feed(STREAM.slice(cut))]).toEqual(whole)
  }
})

test('a frame that is not ended is not given', () => {
  expect(new SseParser().feed('id: 1-0\ndata: x\n')).toEqual([])
})

test('an event of a type that is not known is kept as custom', () => {
  const event = readEvent('{"type":"turn_dreamt","ts":"2026-01-01T00:00:00Z","runId":"r","seq":7,"turn":2,"of":"sheep"}')
  expect(event).toMatchObject({ type: 'custom', name: 'turn_dreamt', seq: 7, turn: 2, data: { of: 'sheep' } })
})

test('what is no event is none', () => {
  for (const data of ['', '[DONE]', 'null', '[]', '{"type":"run_paused"}', '{"type":1,"seq":1,"ts":""}']) {
    expect(readEvent(data)).toBeNull()
  }
})
