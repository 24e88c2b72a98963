// The lines of a live log: bounded, with filtered views that cost only what is new.

import type { Group, Line } from './event_lines'

/** Kept at most; a row of 20 px each then stays far below the tallest element that browsers can scroll. */
export const MAX_LINES = 200_000
const DROPPED_AT_ONCE = 20_000

export class LineLog {
  lines: Line[] = []
  /** How many of the oldest lines are gone; views begin again when it changes. */
  dropped = 0
  readonly counts = new Map<Group, number>()
  private nextKey = 0

  constructor(private readonly maxLines = MAX_LINES) {}

  add(line: Omit<Line, 'key'>): void {
    this.lines.push({ ...line, key: this.nextKey++ })
    this.counts.set(line.group, (this.counts.get(line.group) ?? 0) + 1)
    if (this.lines.length > this.maxLines) {
      const gone = Math.min(DROPPED_AT_ONCE, Math.ceil(this.maxLines / 2))
      this.lines = this.lines.slice(gone)
      this.dropped += gone
    }
  }
}

export interface LineFilter {
  hidden: ReadonlySet<Group>
  text: string
  turn: number | null
}

export const EVERYTHING: LineFilter = { hidden: new Set(), text: '', turn: null }

/** Which lines a filter lets through; `update` looks only at lines it has not seen. */
export class LineView {
  rows: Line[] = []
  private seen = 0
  private dropped = 0
  private readonly needle: string

  constructor(
    private readonly log: LineLog,
    private readonly filter: LineFilter,
  ) {
    this.needle = filter.text.toLowerCase()
    this.dropped = log.dropped
  }

  update(): Line[] {
    if (this.log.dropped !== this.dropped) {
      this.dropped = this.log.dropped
      this.seen = 0
      this.rows = []
    }
    const { lines } = this.log
    if (this.isOpen) {
      this.seen = lines.length
      return lines
    }
    for (; this.seen < lines.length; this.seen++) {
      const line = lines[this.seen] as Line
      if (this.passes(line)) this.rows.push(line)
    }
    return this.rows
  }

  private get isOpen(): boolean {
    return !this.needle && this.filter.hidden.size === 0 && this.filter.turn === null
  }

  private passes(line: Line): boolean {
    if (this.filter.hidden.has(line.group)) return false
    if (this.filter.turn !== null && line.turn !== this.filter.turn) return false
    return !this.needle || line.text.toLowerCase().includes(this.needle) || line.type.includes(this.needle)
  }
}
