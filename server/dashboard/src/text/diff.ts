// Patches as lines to colour. Pure. Knows unified diffs and the patch text of codex' apply_patch ("*** Begin Patch").

export type DiffKind = 'file' | 'hunk' | 'add' | 'del' | 'same'

export interface DiffLine {
  kind: DiffKind
  text: string
}

const FILE = /^(diff --git |index [0-9a-f]+\.\.|--- |\+\+\+ |new file mode |deleted file mode |rename |similarity |\*\*\* )/
const HUNK = /^@@/

/** True for text that is a diff, or that has one in it. */
export function looksLikeDiff(text: string): boolean {
  if (text.includes('*** Begin Patch')) return true
  return /^(diff --git |--- .+\n\+\+\+ )/m.test(text) && /^@@ /m.test(text)
}

/** The lines with what they mean. A `---` inside a hunk is a deleted line, not a file. */
export function diffLines(text: string): DiffLine[] {
  const lines = text.replace(/\n$/, '').split('\n')
  let inHunk = false
  return lines.map((line, place) => {
    const begins = FILE.test(line) && !(inHunk && isHunkLine(line, lines[place + 1]))
    if (begins) {
      inHunk = line.startsWith('*** Add File')
      return { kind: 'file', text: line }
    }
    if (HUNK.test(line)) {
      inHunk = true
      return { kind: 'hunk', text: line }
    }
    if (inHunk && line.startsWith('+')) return { kind: 'add', text: line }
    if (inHunk && line.startsWith('-')) return { kind: 'del', text: line }
    return { kind: 'same', text: line }
  })
}

/** Within a hunk `--- x` and `+++ x` are a change unless they come as a pair. */
function isHunkLine(line: string, next: string | undefined): boolean {
  if (line.startsWith('--- ')) return !next?.startsWith('+++ ')
  return false
}

/** Added and deleted lines. */
export function diffCounts(lines: readonly DiffLine[]): { added: number; deleted: number } {
  let added = 0
  let deleted = 0
  for (const line of lines) {
    if (line.kind === 'add') added++
    else if (line.kind === 'del') deleted++
  }
  return { added, deleted }
}
