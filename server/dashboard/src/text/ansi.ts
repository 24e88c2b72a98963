// A line with ANSI escape sequences as spans of plain text. Pure. Source: ECMA-48 (SGR, CSI) and xterm's OSC.
//
// Colours become one of the 16 of the page's theme, so that text stays readable on a light and on a dark page, whatever
// the program asked for. Everything else that a terminal would obey is dropped.

export interface Span {
  text: string
  /** CSS classes: `ansi-fg-N`, `ansi-bg-N` (0-15), `ansi-bold`, `ansi-dim`, `ansi-italic`, `ansi-underline`. */
  classes: string
}

interface Style {
  fg: number | null
  bg: number | null
  bold: boolean
  dim: boolean
  italic: boolean
  underline: boolean
  inverse: boolean
}

const PLAIN: Style = { fg: null, bg: null, bold: false, dim: false, italic: false, underline: false, inverse: false }

// CSI ... final | OSC ... (BEL or ST) | other escapes | control characters except tab.
const SEQUENCE =
  /\x1b\[([0-?]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)|\x1b[PX^_][^\x1b]*(?:\x1b\\|$)|\x1b[ -/]*[0-~]?|\x9b[0-?]*[ -/]*[@-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]/g

/** The spans of one line. A line without escapes costs one search. */
export function ansiSpans(line: string): Span[] {
  const text = overwritten(line)
  if (text.search(SEQUENCE) < 0) return text ? [{ text, classes: '' }] : []
  const spans: Span[] = []
  let style = PLAIN
  let begin = 0
  for (const match of text.matchAll(SEQUENCE)) {
    push(spans, text.slice(begin, match.index), style)
    begin = match.index + match[0].length
    if (match[2] === 'm') style = restyled(style, match[1] ?? '')
  }
  push(spans, text.slice(begin), style)
  return spans
}

/** The text alone. */
export const withoutAnsi = (line: string): string => overwritten(line).replace(SEQUENCE, '')

/** A carriage return begins the line anew: progress bars show their last state. */
function overwritten(line: string): string {
  const trimmed = line.endsWith('\r') ? line.slice(0, -1) : line
  const last = trimmed.lastIndexOf('\r')
  return last < 0 ? trimmed : trimmed.slice(last + 1)
}

function push(spans: Span[], text: string, style: Style): void {
  if (!text) return
  const classes = classesOf(style)
  const last = spans.at(-1)
  if (last && last.classes === classes) last.text += text
  else spans.push({ text, classes })
}

function classesOf(style: Style): string {
  const fg = style.inverse ? null : style.fg
  const bg = style.inverse ? (style.fg ?? 8) : style.bg
  return [
    fg === null ? '' : `ansi-fg-${fg}`,
    bg === null ? '' : `ansi-bg-${bg}`,
    style.bold ? 'ansi-bold' : '',
    style.dim ? 'ansi-dim' : '',
    style.italic ? 'ansi-italic' : '',
    style.underline ? 'ansi-underline' : '',
  ]
    .filter(Boolean)
    .join(' ')
}

function restyled(style: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map((code) => (code === '' ? 0 : Number(code)))
  let next = { ...style }
  for (let place = 0; place < codes.length; place++) {
    const code = codes[place] ?? 0
    if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(place + 1))
      if (code === 38) next.fg = colour
      else next.bg = colour
      place += used
    } else next = simple(next, code)
  }
  return next
}

function simple(style: Style, code: number): Style {
  if (code === 0) return PLAIN
  if (code === 1) return { ...style, bold: true }
  if (code === 2) return { ...style, dim: true }
  if (code === 3) return { ...style, italic: true }
  if (code === 4) return { ...style, underline: true }
  if (code === 7) return { ...style, inverse: true }
  if (code === 22) return { ...style, bold: false, dim: false }
  if (code === 23) return { ...style, italic: false }
  if (code === 24) return { ...style, underline: false }
  if (code === 27) return { ...style, inverse: false }
  if (code >= 30 && code <= 37) return { ...style, fg: code - 30 }
  if (code === 39) return { ...style, fg: null }
  if (code >= 40 && code <= 47) return { ...style, bg: code - 40 }
  if (code === 49) return { ...style, bg: null }
  if (code >= 90 && code <= 97) return { ...style, fg: code - 82 }
  if (code >= 100 && code <= 107) return { ...style, bg: code - 92 }
  return style
}

/** `5;N` or `2;R;G;B` as one of 16 colours, and how many numbers it took. */
function extended(rest: number[]): [number | null, number] {
  if (rest[0] === 5) return [indexed(rest[1] ?? 0), 2]
  if (rest[0] === 2) return [nearest(rest[1] ?? 0, rest[2] ?? 0, rest[3] ?? 0), 4]
  return [null, 1]
}

function indexed(index: number): number {
  if (index < 16) return index
  if (index >= 232) return nearest((index - 232) * 10 + 8, (index - 232) * 10 + 8, (index - 232) * 10 + 8)
  const level = (step: number): number => (step === 0 ? 0 : step * 40 + 55)
  const place = index - 16
  return nearest(level(Math.floor(place / 36)), level(Math.floor(place / 6) % 6), level(place % 6))
}

/** The hue by which channels dominate: bit 0 red, 1 green, 2 blue, as in the first eight colours; 8 more when bright. */
function nearest(red: number, green: number, blue: number): number {
  const top = Math.max(red, green, blue)
  const low = Math.min(red, green, blue)
  if (top - low < 32) return top < 64 ? 0 : top < 140 ? 8 : top < 220 ? 7 : 15
  const middle = (top + low) / 2
  const hue = (red > middle ? 1 : 0) | (green > middle ? 2 : 0) | (blue > middle ? 4 : 0)
  return top > 200 ? hue + 8 : hue
}
