// A list of any length, of which only the rows in sight are in the page.

import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import { isAtEnd, scrollToRow, visibleRows } from '../model/windowing'

interface Props {
  count: number
  rowPx: number
  row: (index: number) => ComponentChildren
  /** Stay at the end while rows are added. */
  follow?: boolean
  onFollow?: (follow: boolean) => void
  /** A row to bring into sight when it changes. */
  reveal?: number | null
  onNearEnd?: () => void
  role?: 'listbox' | 'rowgroup'
  label?: string
  class?: string
  /** What makes a listbox one stop for Tab: the row that the keys are at, and the keys. */
  active?: { index: number; id: string }
  onKeyDown?: (event: KeyboardEvent) => void
}

const NEAR_END_ROWS = 40

export function VirtualList(props: Props) {
  const { count, rowPx, follow = false, onFollow, reveal, onNearEnd } = props
  const outer = useRef<HTMLDivElement>(null)
  const lastTop = useRef(0)
  const [view, setView] = useState({ top: 0, height: 600 })

  useLayoutEffect(() => {
    const element = outer.current
    if (!element) return
    const measure = (): void => setView((old) => ({ ...old, height: element.clientHeight }))
    measure()
    const observer = new ResizeObserver(measure)
    observer.observe(element)
    return () => observer.disconnect()
  }, [])

  // Before the frame is painted: rows that are added never flash by below the end.
  useLayoutEffect(() => {
    const element = outer.current
    if (!element || !follow) return
    element.scrollTop = count * rowPx
    lastTop.current = element.scrollTop
    setView({ top: element.scrollTop, height: element.clientHeight })
  }, [follow, count, rowPx, view.height])

  useLayoutEffect(() => {
    const element = outer.current
    if (!element || reveal == null || reveal < 0) return
    const top = scrollToRow(reveal, rowPx, element.scrollTop, element.clientHeight)
    if (top !== null) element.scrollTop = top
  }, [reveal, rowPx])

  const onScroll = (): void => {
    const element = outer.current
    if (!element) return
    const { scrollTop, clientHeight } = element
    setView({ top: scrollTop, height: clientHeight })
    if (onFollow) {
      const atEnd = isAtEnd(count, rowPx, scrollTop, clientHeight)
      // Only the reader scrolls upwards; what is added only makes the end move away.
      if (follow && scrollTop < lastTop.current && !atEnd) onFollow(false)
      else if (!follow && atEnd && scrollTop > lastTop.current) onFollow(true)
    }
    lastTop.current = scrollTop
  }

  const { begin, end } = visibleRows(count, rowPx, view.top, view.height)
  useEffect(() => {
    if (end >= count - NEAR_END_ROWS) onNearEnd?.()
  }, [end, count, onNearEnd])

  const rows = []
  for (let index = begin; index < end; index++) rows.push(props.row(index))
  // Only a row that is in the page can be named.
  const active = props.active && props.active.index >= begin && props.active.index < end ? props.active.id : undefined
  return (
    <div
      ref={outer}
      class={`vlist ${props.class ?? ''}`}
      role={props.role}
      aria-label={props.label}
      aria-activedescendant={active}
      tabIndex={props.onKeyDown ? 0 : undefined}
      onKeyDown={props.onKeyDown}
      onScroll={onScroll}
    >
      <div class="vlist-space" role="presentation" style={{ height: `${count * rowPx}px` }}>
        <div class="vlist-rows" role="presentation" style={{ transform: `translateY(${begin * rowPx}px)` }}>
          {rows}
        </div>
      </div>
    </div>
  )
}
