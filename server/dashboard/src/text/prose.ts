// What a model says, as pieces to draw: plain text, `code`, and fenced blocks. Pure. Everything else of Markdown stays as it is.

export interface Piece {
  kind: 'text' | 'code' | 'block'
  text: string
}

const FENCE = /^```[^\n`]*\n([\s\S]*?)(?:\n```[ \t]*$|$(?![\s\S]))/gm
const INLINE = /`([^`\n]+)`/g

export function pieces(text: string): Piece[] {
  const found: Piece[] = []
  let begin = 0
  for (const match of text.matchAll(FENCE)) {
    inline(found, text.slice(begin, match.index).replace(/\n$/, ''))
    found.push({ kind: 'block', text: match[1] ?? '' })
    begin = match.index + match[0].length
  }
  inline(found, begin ? text.slice(begin).replace(/^\n/, '') : text)
  return found
}

function inline(found: Piece[], text: string): void {
  let begin = 0
  for (const match of text.matchAll(INLINE)) {
    push(found, 'text', text.slice(begin, match.index))
    push(found, 'code', match[1] ?? '')
    begin = match.index + match[0].length
  }
  push(found, 'text', text.slice(begin))
}

function push(found: Piece[], kind: Piece['kind'], text: string): void {
  if (text) found.push({ kind, text })
}
