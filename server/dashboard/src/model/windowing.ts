// Which rows of a long list are to be drawn. Pure. All rows have one height, so nothing is ever measured.

export interface Rows {
  /** First row drawn, and the one behind the last. */
  begin: number
  end: number
}

/** The rows that a viewport shows, and some more on either side so that a quick scroll finds them drawn. */
export function visibleRows(count: number, rowPx: number, scrollPx: number, viewPx: number, overscan = 8): Rows {
  if (count <= 0 || rowPx <= 0) return { begin: 0, end: 0 }
  const first = Math.min(Math.max(0, Math.floor(scrollPx / rowPx)), count - 1)
  const shown = Math.ceil(Math.max(0, viewPx) / rowPx) + 1
  return { begin: Math.max(0, first - overscan), end: Math.min(count, first + shown + overscan) }
}

/** Whether the viewport is at the list's end, give or take a row: then it follows what is added. */
export function isAtEnd(count: number, rowPx: number, scrollPx: number, viewPx: number): boolean {
  return scrollPx + viewPx >= count * rowPx - rowPx
}

/** Where to scroll so that a row is wholly seen; null when it is already. */
export function scrollToRow(row: number, rowPx: number, scrollPx: number, viewPx: number): number | null {
  const top = row * rowPx
  if (top < scrollPx) return top
  if (top + rowPx > scrollPx + viewPx) return top + rowPx - viewPx
  return null
}
