import { expect, test } from 'vitest'
import { eventOf } from '../src/api/archived_events'

test('the events of an export, and nothing else', () => {
  const event = { type: 'warning', ts: 't', runId: 'r', seq: 7, code: 'c', message: 'm' }
  expect(eventOf(`{"kind":"event","id":"1-0","event":${JSON.stringify(event)}}`)).toEqual(event)
  expect(eventOf('{"kind":"run","run":{}}')).toBeNull()
  expect(eventOf('{"kind":"event","id":"1-0","event":{"type":"wa')).toBeNull()
  expect(eventOf('')).toBeNull()
})
