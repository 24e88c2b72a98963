import { expect, test } from 'vitest'
import { emptyForm, fieldOf, formOf, requestOf, withheldOf } from '../src/model/run_form'
import { readPlace } from '../src/router'
import { compact, duration } from '../src/text/format'

test('only what differs from the defaults is sent, the folder always', () => {
  expect(requestOf(emptyForm())).toEqual({ epicId: 'current-epic', config: { workingDir: '' } })
  expect(requestOf({ ...emptyForm(), 'config.workingDir': ' /w ', 'config.maxTurns': '3', 'config.budget.maxIdleSec': '' })).toEqual({
    epicId: 'current-epic',
    config: { workingDir: '/w', maxTurns: 3, budget: { maxIdleSec: null } },
  })
})

test('what is no number is left to the server to judge', () => {
  expect(requestOf({ ...emptyForm(), 'config.maxTurns': 'many' }).config).toMatchObject({ maxTurns: 'many' })
})

test('a command belongs to its agent', () => {
  const form = { ...emptyForm(), 'config.command': 'sh\n-c\n  echo "a b"\n', 'config.env': 'A=1\nB=x=y\nC' }
  expect(requestOf(form).config).not.toHaveProperty('command')
  expect(requestOf({ ...form, 'config.agent': 'command' }).config).toMatchObject({
    command: ['sh', '-c', '  echo "a b"'],
    env: { A: '1', B: 'x=y', C: '' },
  })
})

test('a run becomes a form that makes the same run, and what of its environment is not told is named', () => {
  const env = { CODEX_HOME: '/h', URL: 'http://a/?b=c', API_KEY: '[redacted:API_KEY]', LINES: 'a\nb' }
  const config = { workingDir: '/w', agent: 'command', command: ['a', 'b'], maxTurns: 2, env, watch: { include: ['x'], exclude: [] } }
  const run = { epicId: 'e', config } as never
  expect(requestOf(formOf(run))).toEqual({
    epicId: 'e',
    config: {
      workingDir: '/w',
      agent: 'command',
      command: ['a', 'b'],
      maxTurns: 2,
      env: { CODEX_HOME: '/h', URL: 'http://a/?b=c' },
      watch: { include: ['x'], exclude: [] },
    },
  })
  expect(withheldOf(run)).toEqual(['API_KEY', 'LINES'])
})

test("the server's places are found in the form", () => {
  expect(fieldOf('config.command[2]')).toBe('config.command')
  expect(fieldOf('config.env.BAD NAME')).toBe('config.env')
  expect(fieldOf('config.budget.maxTurnSec')).toBe('config.budget.maxTurnSec')
  expect(fieldOf('epicId')).toBe('epicId')
  expect(fieldOf('config')).toBeNull()
})

test('addresses', () => {
  expect(readPlace('/', '?q=x').query.get('q')).toBe('x')
  expect(readPlace('/runs/0b8f4f9e-0a4e-4a57-9f0e-5b8f0e6e7a11', '').route).toMatchObject({ page: 'run' })
  expect(readPlace('/runs/../x', '').route).toEqual({ page: 'unknown' })
})

test('numbers for people', () => {
  expect([0, 999, 1_000, 12_345, 999_949, 999_960, 4_200_000].map(compact)).toEqual(['0', '999', '1k', '12.3k', '1000k', '1M', '4.2M'])
  expect([400, 9_949, 9_960, 65_000, 3_599_600, 90_000_000].map(duration)).toEqual(['0.4s', '9.9s', '10s', '1m 05s', '1h 00m', '1d 01h'])
})
