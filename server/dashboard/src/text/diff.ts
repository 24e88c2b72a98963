// Patches as lines to colour, file by file. Pure. Knows unified diffs and the patch text of codex' apply_patch ("*** Begin Patch").

export type DiffKind = 'file' | 'hunk' | 'add' | 'del' | 'same'

export interface DiffLine {
  kind: DiffKind
  text: string
}

export interface DiffFile {
  /** Null for lines that stand before any file is named. */
  path: string | null
  change: 'add' | 'delete' | 'update'
  lines: DiffLine[]
  added: number
  deleted: number
}

const FILE = /^(diff --git |index [0-9a-f]+\.\.|--- |\+\+\+ |new file mode |deleted file mode |rename |similarity |\*\*\* )/
const HUNK = /^@@(?: -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@)?/
const PATCH_FILE = /^\*\*\* (Add|Update|Delete) File: (.+)$/

/** True for text that is a diff, or that has one in it. */
export function looksLikeDiff(text: string): boolean {
  if (text.includes('*** Begin Patch')) return true
  return /^(diff --git |--- .+\n\+\+\+ )/m.test(text) && /^@@ /m.test(text)
}

/** The lines with what they mean. A `---` inside a hunk is a deleted line, not a file: the hunk's head counts its lines. */
export function diffLines(text: string): DiffLine[] {
  const lines = text.replace(/\n$/, '').split('\n')
  let inHunk = false
  /** Lines of either side that the hunk still has; null where its head does not say, as in apply_patch's. */
  let left: { old: number; new: number } | null = null
  return lines.map((line, place) => {
    const counted = left !== null && left.old + left.new > 0
    if (!counted && FILE.test(line) && !(inHunk && left === null && isHunkLine(line, lines[place + 1]))) {
      inHunk = line.startsWith('*** Add File')
      left = null
      return { kind: 'file', text: line }
    }
    const head = counted ? null : HUNK.exec(line)
    if (head) {
      inHunk = true
      left = line.startsWith('@@ -') ? { old: Number(head[1] ?? 1), new: Number(head[2] ?? 1) } : null
      return { kind: 'hunk', text: line }
    }
    const kind: DiffKind = !inHunk ? 'same' : line.startsWith('+') ? 'add' : line.startsWith('-') ? 'del' : 'same'
    if (left && !line.startsWith('\\')) {
      if (kind !== 'add') left.old = Math.max(0, left.old - 1)
      if (kind !== 'del') left.new = Math.max(0, left.new - 1)
    }
    return { kind, text: line }
  })
}

/** Within a hunk `--- x` and `+++ x` are a change unless they come as a pair. */
function isHunkLine(line: string, next: string | undefined): boolean {
  if (line.startsWith('--- ')) return !next?.startsWith('+++ ')
  return false
}

/** The files of a diff, each without the lines that only name it. */
export function diffFiles(text: string): DiffFile[] {
  const files: DiffFile[] = []
  /** The lines that name the file so far; null within it. */
  let head: string[] | null = null
  const begin = (): DiffFile => {
    const file: DiffFile = { path: null, change: 'update', lines: [], added: 0, deleted: 0 }
    files.push(file)
    return file
  }
  for (const line of text ? diffLines(text) : []) {
    if (line.kind === 'file') {
      if (line.text === '*** Begin Patch' || line.text === '*** End Patch' || line.text.startsWith('*** End of File')) continue
      if (!head || beginsAnother(line.text, head)) {
        begin()
        head = []
      }
      head.push(line.text)
      takeHead(files.at(-1) as DiffFile, line.text)
      continue
    }
    head = null
    const file = files.at(-1) ?? begin()
    file.lines.push(line)
    if (line.kind === 'add') file.added++
    else if (line.kind === 'del') file.deleted++
  }
  return files
}

/** Whether the line names another file than those before it: the one before had nothing but its name. */
function beginsAnother(line: string, head: string[]): boolean {
  if (line.startsWith('diff --git ') || PATCH_FILE.test(line)) return true
  return line.startsWith('--- ') && head.some((one) => one.startsWith('+++ '))
}

function takeHead(file: DiffFile, text: string): void {
  const patch = PATCH_FILE.exec(text)
  if (patch) {
    file.path = patch[2] ?? null
    file.change = patch[1] === 'Add' ? 'add' : patch[1] === 'Delete' ? 'delete' : 'update'
  } else if (text.startsWith('--- ')) {
    if (text === '--- /dev/null') file.change = 'add'
    else file.path = plainPath(text.slice(4))
  } else if (text.startsWith('+++ ')) {
    if (text === '+++ /dev/null') file.change = 'delete'
    else file.path = plainPath(text.slice(4))
  }
}

const plainPath = (text: string): string => text.replace(/\t.*$/, '').replace(/^[ab]\//, '')
