import { expect, test } from 'vitest'
import { pieces } from '../src/text/prose'

test('code in a sentence, and a block', () => {
  expect(pieces('Run `make test` first:\n```sh\nmake `x`\n\nmake\n```\nthen stop.')).toEqual([
    { kind: 'text', text: 'Run ' },
    { kind: 'code', text: 'make test' },
    { kind: 'text', text: ' first:' },
    { kind: 'block', text: 'make `x`\n\nmake' },
    { kind: 'text', text: 'then stop.' },
  ])
})

test('a block that is still being written', () => {
  expect(pieces('```\nhalf')).toEqual([{ kind: 'block', text: 'half' }])
})

test('text without code is one piece, and backticks that are no code stay', () => {
  expect(pieces('a ` b\n`` c')).toEqual([{ kind: 'text', text: 'a ` b\n`` c' }])
  expect(pieces('')).toEqual([])
})
