import { expect, test } from 'vitest'
import { ansiSpans, withoutAnsi } from '../src/text/ansi'

const ESC = '\x1b'

test('a plain line is one span without classes', () => {
  expect(ansiSpans('hello')).toEqual([{ text: 'hello', classes: '' }])
  expect(ansiSpans('')).toEqual([])
})

test('colours and styles last until they are reset', () => {
  expect(ansiSpans(`a ${ESC}[1;31mred${ESC}[0m b`)).toEqual([
    { text: 'a ', classes: '' },
    { text: 'red', classes: 'ansi-fg-1 ansi-bold' },
    { text: ' b', classes: '' },
  ])
})

test('bright, 256 and true colours become one of sixteen', () => {
  expect(ansiSpans(`${ESC}[92mx`)[0]?.classes).toBe('ansi-fg-10')
  expect(ansiSpans(`${ESC}[38;5;196mx`)[0]?.classes).toBe('ansi-fg-9')
  expect(ansiSpans(`${ESC}[38;2;0;0;160mx`)[0]?.classes).toBe('ansi-fg-4')
  expect(ansiSpans(`${ESC}[48;5;240mx`)[0]?.classes).toBe('ansi-bg-8')
  expect(ansiSpans(`${ESC}[38;5;1;4mx`)[0]?.classes).toBe('ansi-fg-1 ansi-underline')
})

test('inverse has a ground and no colour of its own, so that it stays readable', () => {
  expect(ansiSpans(`${ESC}[31;7mx`)[0]?.classes).toBe('ansi-bg-1')
})

test('what would move a cursor, set a title or ring is dropped, its text is not', () => {
  expect(withoutAnsi(`${ESC}[2J${ESC}[10;3Ha${ESC}]0;title\x07b${ESC}]8;;http://x${ESC}\\c\x07\x00d`)).toBe('abcd')
})

test('markup is text like any other', () => {
  expect(ansiSpans('<img src=x onerror=alert(1)>')).toEqual([{ text: '<img src=x onerror=alert(1)>', classes: '' }])
})

test('a carriage return begins the line anew', () => {
  expect(withoutAnsi('10%\r50%\r100%')).toBe('100%')
  expect(withoutAnsi('whole\r')).toBe('whole')
})

test('an escape that is cut off at the end is not shown', () => {
  expect(withoutAnsi(`abc${ESC}[`)).not.toContain(ESC)
  expect(withoutAnsi(`abc${ESC}`)).toBe('abc')
})

test('a long line of escapes takes no time to speak of', () => {
  expect(withoutAnsi(`${ESC}]`.repeat(20_000))).toBe('')
  expect(withoutAnsi(`${ESC}[31m`.repeat(20_000))).toBe('')
})
