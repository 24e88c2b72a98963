import { expect, test } from 'vitest'
import type { RunEvent, TurnRecord } from '../src/api/contracts'
import { RunModel } from '../src/model/run_model'

let seq = 0
const event = (body: Record<string, unknown>): RunEvent =>
  ({ ts: '2026-01-01T00:00:00.000Z', runId: 'r', seq: ++seq, ...body }) as unknown as RunEvent

const usage = (inputTokens: number, cachedInputTokens: number, outputTokens: number) => ({
  inputTokens,
  cachedInputTokens,
  outputTokens,
  reasoningTokens: 0,
  totalTokens: inputTokens + outputTokens,
})

function modelOf(...bodies: Record<string, unknown>[]): RunModel {
  seq = 0
  const model = new RunModel()
  for (const body of bodies) model.apply(event(body))
  return model
}

const started = (turn: number) => ({ type: 'turn_started', turn, pid: 1, responseId: 'x' })

test('a turn is what its events say', () => {
  const model = modelOf(
    { type: 'run_started', workerId: 'w', host: 'h', fence: 1 },
    started(1),
    { type: 'file_written', turn: 1, path: 'a', source: 'agent' },
    { type: 'file_written', turn: 1, path: 'a', source: 'agent' },
    { type: 'file_deleted', turn: 1, path: 'b', source: 'agent' },
    { type: 'test_run_completed', turn: 1, passed: 3, failed: 1, skipped: 0 },
    { type: 'token_usage', turn: 1, ...usage(10, 5, 2) },
    { type: 'token_usage', turn: 1, ...usage(20, 5, 3) },
  )
  const [turn] = model.ordered
  expect(turn).toMatchObject({ turn: 1, status: 'running', filesWritten: 1, testsPassed: 3, testsFailed: 1 })
  expect(turn?.usage).toMatchObject(usage(30, 10, 5))
  expect([...(turn?.files ?? [])]).toEqual([['a', 'written'], ['b', 'deleted']])

  model.apply(event({ type: 'turn_completed', turn: 1, tokenUsage: usage(31, 10, 5), durationMs: 900, exitCode: 0 }))
  expect(model.ordered[0]).toMatchObject({ status: 'completed', durationMs: 900, usage: usage(31, 10, 5) })
})

test('an event that came before changes nothing', () => {
  const model = modelOf(started(1), { type: 'token_usage', turn: 1, ...usage(10, 0, 0) })
  const again = { ...event({ type: 'token_usage', turn: 1, ...usage(10, 0, 0) }), seq: 2 }
  expect(model.apply(again)).toBe(false)
  expect(model.ordered[0]?.usage.inputTokens).toBe(10)
  expect(model.log.lines.length).toBe(2)
})

test('an interrupted turn that is done again begins anew', () => {
  const model = modelOf(
    started(1),
    { type: 'file_written', turn: 1, path: 'a', source: 'agent' },
    { type: 'turn_interrupted', turn: 1, reason: 'shutdown' },
    { type: 'run_recovered', fromWorker: 'w', toWorker: 'v', fence: 2 },
    started(1),
  )
  expect(model.ordered[0]).toMatchObject({ status: 'running', attempts: 2, filesWritten: 0, interrupted: null })
})

const record = (turn: number, status = 'completed'): TurnRecord =>
  ({ turn, status, startedAt: 's', durationMs: 5, tokenUsage: usage(7, 0, 0), files: ['z'], filesWritten: 1, testsPassed: 4, testsFailed: 0 }) as unknown as TurnRecord

test('a record does not add to what the events said, whichever comes first', () => {
  const model = new RunModel()
  seq = 0
  model.takeRecords([record(1, 'running')])
  model.apply(event(started(1)))
  model.apply(event({ type: 'test_run_completed', turn: 1, passed: 3, failed: 0, skipped: 0 }))
  model.takeRecords([record(1)])
  expect(model.ordered[0]).toMatchObject({ testsPassed: 3, status: 'running' })
})

test('events that are gone are told of, and their turns are as the record has them', () => {
  const model = new RunModel()
  seq = 100
  model.apply(event({ type: 'test_run_completed', turn: 2, passed: 1, failed: 0, skipped: 0 }))
  model.apply(event(started(3)))
  model.takeRecords([record(1), record(2), record(3, 'running')])
  expect(model.gaps).toEqual([{ from: 1, to: 100 }])
  expect(model.log.lines[0]?.text).toContain('events 1 to 100')
  expect(model.ordered.map((turn) => [turn.turn, turn.status, turn.testsPassed])).toEqual([
    [1, 'completed', 4],
    [2, 'completed', 4],
    [3, 'running', 0],
  ])
})

test('a turn in whose midst events went missing is as the record has it', () => {
  const model = modelOf(started(1))
  seq = 50
  model.apply(event({ type: 'turn_completed', turn: 1, tokenUsage: usage(1, 0, 0), durationMs: 1, exitCode: 0 }))
  model.takeRecords([record(1)])
  expect(model.ordered[0]?.filesWritten).toBe(1)
})

test('a call and its output are one entry of the transcript', () => {
  const model = modelOf(
    started(1),
    { type: 'turn_item', turn: 1, item: { type: 'function_call', call_id: 'c', name: 'exec_command', arguments: '{"cmd":"/bin/bash -lc \'ls -l\'"}' } },
    { type: 'turn_item', turn: 1, item: { type: 'function_call_output', call_id: 'c', output: 'total 0\n', exit_code: 2, status: 'completed' } },
    { type: 'turn_item', turn: 1, item: { type: 'reasoning', summary: [{ text: '**Looking**\n\naround' }] } },
    { type: 'turn_item', turn: 1, item: { type: 'mystery', deep: { x: 1 } } },
  )
  expect(model.ordered[0]?.entries).toMatchObject([
    { kind: 'command', script: 'ls -l', output: { text: 'total 0\n', exitCode: 2 } },
    { kind: 'reasoning', title: 'Looking', text: 'around' },
    { kind: 'other', name: 'mystery' },
  ])
  expect(model.log.lines.map((line) => line.text)).toContain('$ ls -l')
})

test('log parts say how much of them is only in the file', () => {
  const model = modelOf({ type: 'log_updated', log: 'codys-log.md', path: 'p', appendedBytes: 10, tail: 'äb\n' })
  expect(model.parts['codys-log.md']).toMatchObject([{ text: 'äb\n', missingBytes: 6 }])
})

test('50,000 events are taken in', () => {
  const model = modelOf(started(1))
  for (let number = 0; number < 50_000; number++) model.apply(event({ type: 'subprocess_output', turn: 1, stream: 'stdout', text: `line ${number}\n` }))
  expect(model.log.lines.length).toBe(50_001)
  expect(model.log.lines.at(-1)?.text).toBe('line 49999')
})

test('an event that lacks what it should have is shown as it is, and the next one counts', () => {
  const model = modelOf({ type: 'run_completed' }, started(1))
  expect(model.log.lines.map((line) => line.text)).toEqual(['{"type":"run_completed"}', 'turn 1 started (pid 1)'])
})
