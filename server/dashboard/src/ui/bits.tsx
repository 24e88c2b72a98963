// Small pieces that several pages draw.

import type { ComponentChildren } from 'preact'
import { useMemo, useRef } from 'preact/hooks'
import type { RunStatus, TurnStatus } from '../api/contracts'
import { ansiSpans } from '../text/ansi'
import { type DiffLine, diffFiles } from '../text/diff'

/** A status: always a word and a shape, never a colour alone. */
export function Status({ status }: { status: RunStatus | TurnStatus }) {
  return (
    <span class={`status status-${status}`}>
      <span class="status-dot" aria-hidden="true" />
      {status}
    </span>
  )
}

/** A line with its colours; text in, text out, never markup. */
export function Ansi({ text }: { text: string }) {
  return (
    <>
      {ansiSpans(text).map((span, place) =>
        span.classes ? (
          <span key={place} class={span.classes}>
            {span.text}
          </span>
        ) : (
          span.text
        ),
      )}
    </>
  )
}

// The two below keep what they drew: a live turn is drawn up to sixty times a second, and its texts do not change.

export function AnsiBlock({ text }: { text: string }) {
  const lines = useMemo(() => text.replace(/\n$/, '').split('\n').map(ansiLine), [text])
  return (
    <pre class="block" tabIndex={0}>
      {lines}
    </pre>
  )
}

const ansiLine = (line: string, place: number) => (
  <span key={place}>
    <Ansi text={line} />
    {'\n'}
  </span>
)

/** A diff, each of its files under its name. */
export function Diff({ text }: { text: string }) {
  const files = useMemo(() => diffFiles(text), [text])
  return (
    <div class="diff">
      {files.map((file, place) => (
        <section key={place} class="diff-of" aria-label={file.path ? `Changes of ${file.path}` : 'Changes'}>
          {file.path && (
            <header>
              <span class={`change change-${file.change}`}>{file.change}</span>
              <code>{file.path}</code>
              <span class="diff-counts">
                <span class="tone-good">+{file.added}</span> <span class="tone-bad">−{file.deleted}</span>
              </span>
            </header>
          )}
          {file.lines.length > 0 && (
            <pre class="block" tabIndex={0} aria-label={file.path ? `Diff of ${file.path}` : 'Diff'}>
              <code>{file.lines.map(diffLine)}</code>
            </pre>
          )}
        </section>
      ))}
    </div>
  )
}

// A block of its own, without the newline: an empty one still takes its line.
const diffLine = (line: DiffLine, place: number) => (
  <span key={place} class={`diff-line diff-${line.kind}`}>
    {line.text || ' '}
  </span>
)

interface FigureProps {
  name: string
  value: ComponentChildren
  hint?: string
  tone?: string
}

/** A number with its name. */
export function Figure({ name, value, hint, tone }: FigureProps) {
  return (
    <div class={`figure ${tone ? `tone-${tone}` : ''}`} title={hint}>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  )
}

export function Notice({ tone = 'info', children }: { tone?: 'info' | 'good' | 'warn' | 'bad'; children: ComponentChildren }) {
  return (
    <div class={`notice notice-${tone}`} role={tone === 'bad' ? 'alert' : 'status'}>
      {children}
    </div>
  )
}

/** Where there is nothing to show: why, and what to do. `isPage`: it is all of the page, and its heading. */
export function Empty({ title, isPage = false, children }: { title: string; isPage?: boolean; children?: ComponentChildren }) {
  return (
    <div class="empty">
      {isPage ? <h1>{title}</h1> : <p class="empty-title">{title}</p>}
      {children}
    </div>
  )
}

export interface Tab {
  id: string
  title: string
}

/** Tabs as WAI-ARIA has them: one stop for Tab, arrows between them. */
export function Tabs({ tabs, at, onPick, label }: { tabs: Tab[]; at: string; onPick: (id: string) => void; label: string }) {
  const list = useRef<HTMLDivElement>(null)
  const onKey = (event: KeyboardEvent): void => {
    const next = tabAfter(event.key, tabs.findIndex((tab) => tab.id === at), tabs.length)
    if (next === null) return
    event.preventDefault()
    onPick((tabs[next] as Tab).id)
    list.current?.querySelectorAll<HTMLElement>('[role=tab]')[next]?.focus()
  }
  return (
    <div class="tabs" role="tablist" aria-label={label} ref={list} onKeyDown={onKey}>
      {tabs.map((tab) => (
        <button
          key={tab.id}
          type="button"
          role="tab"
          id={`tab-${tab.id}`}
          aria-selected={tab.id === at}
          aria-controls="tab-panel"
          tabIndex={tab.id === at ? 0 : -1}
          onClick={() => onPick(tab.id)}
        >
          {tab.title}
        </button>
      ))}
    </div>
  )
}

function tabAfter(key: string, at: number, count: number): number | null {
  if (key === 'Home') return 0
  if (key === 'End') return count - 1
  if (key === 'ArrowRight') return (at + 1) % count
  if (key === 'ArrowLeft') return (at - 1 + count) % count
  return null
}
