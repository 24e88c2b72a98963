// What the agent said and did, as a conversation that can be read.

import { useMemo, useState } from 'preact/hooks'
import type { CallOutput, Entry } from '../model/transcript'
import { looksLikeDiff } from '../text/diff'
import { clock, plural } from '../text/format'
import { pieces } from '../text/prose'
import { AnsiBlock, Diff } from './bits'

/** Drawn at first; a turn of hours has thousands, and the last are what one looks for. */
const SHOWN = 150
const SHORT_LINES = 14

export function Transcript({ entries }: { entries: Entry[] }) {
  const [shown, setShown] = useState(SHOWN)
  const hidden = Math.max(0, entries.length - shown)
  return (
    <div class="transcript">
      {hidden > 0 && (
        <button type="button" class="button quiet" onClick={() => setShown(shown + SHOWN)}>
          Show {Math.min(SHOWN, hidden)} earlier of {hidden}
        </button>
      )}
      <ol>
        {entries.slice(hidden).map((entry) => (
          <li key={entry.seq} class={`entry entry-${entry.kind}`}>
            <time class="entry-time" dateTime={entry.ts}>
              {clock(entry.ts)}
            </time>
            <div class="entry-body">
              <EntryBody entry={entry} />
            </div>
          </li>
        ))}
      </ol>
    </div>
  )
}

function EntryBody({ entry }: { entry: Entry }) {
  switch (entry.kind) {
    case 'message':
      return <Prose text={entry.text} />
    case 'reasoning':
      return (
        <p class="thought">
          {entry.title && <strong>{entry.title} </strong>}
          {entry.text}
        </p>
      )
    case 'command':
      return (
        <>
          <div class="command">
            {looksLikeDiff(entry.script) ? <Diff text={entry.script} /> : <code class="script">{entry.script}</code>}
            <Outcome output={entry.output} />
          </div>
          <OutputText output={entry.output} />
        </>
      )
    case 'patch':
      return <Patch entry={entry} />
    case 'plan':
      return <Plan entry={entry} />
    case 'tool':
      return (
        <>
          <div class="command">
            <code class="script">{entry.name}</code>
            <Outcome output={entry.output} />
          </div>
          {entry.input && entry.input !== '{}' && <Folded title="Input" text={entry.input} />}
          <OutputText output={entry.output} />
        </>
      )
    case 'other':
      return <Folded title={entry.name} text={entry.json} />
  }
}

export function Prose({ text }: { text: string }) {
  const found = useMemo(() => pieces(text), [text])
  return (
    <div class="said">
      {found.map((piece, place) => {
        if (piece.kind === 'text') return piece.text
        if (piece.kind === 'code') return <code key={place}>{piece.text}</code>
        return (
          <pre key={place} class="block" tabIndex={0} aria-label="Code">
            {piece.text}
          </pre>
        )
      })}
    </div>
  )
}

const MARKS: Record<string, string> = { completed: '✓', in_progress: '▸' }

function Plan({ entry }: { entry: Extract<Entry, { kind: 'plan' }> }) {
  return (
    <ul class="plan" aria-label="Plan">
      {entry.steps.map((step, place) => (
        <li key={place} class={`plan-${step.status}`}>
          <span aria-hidden="true">{MARKS[step.status] ?? '○'}</span>
          <span class="hidden">{step.status}: </span>
          {step.text}
        </li>
      ))}
    </ul>
  )
}

function Patch({ entry }: { entry: Extract<Entry, { kind: 'patch' }> }) {
  const { output, paths } = entry
  const diff = entry.patch || output?.diff || ''
  return (
    <>
      <div class="command">
        <span class="patched">
          <strong>Patch</strong>
          {/* The diff names its files itself. */}
          {diff ? (
            paths.length > 0 && <span class="dim">{plural(paths.length, 'file')}</span>
          ) : (
            paths.map((one) => (
              <span key={one.path} class="patched-path">
                <span class={`change change-${one.change}`}>{one.change}</span> <code>{one.path}</code>
              </span>
            ))
          )}
        </span>
        <Outcome output={output} />
      </div>
      {diff && <Diff text={diff} />}
      {output?.diffTruncated && <p class="dim small">The diff is longer than what an event carries: it was cut.</p>}
      {output?.diffMissing.map((why) => (
        <p key={why} class="dim small">
          No diff: {why}
        </p>
      ))}
      {output && !output.completed && <OutputText output={output} />}
    </>
  )
}

function Outcome({ output }: { output: CallOutput | null }) {
  if (!output) return <span class="outcome outcome-open">running</span>
  if (!output.completed) return <span class="outcome outcome-bad">unfinished</span>
  if (output.exitCode === null) return <span class="outcome">done</span>
  return <span class={`outcome ${output.exitCode ? 'outcome-bad' : 'outcome-good'}`}>exit {output.exitCode}</span>
}

function OutputText({ output }: { output: CallOutput | null }) {
  if (!output?.text.trim()) return null
  return <Text output={output} />
}

function Text({ output }: { output: CallOutput }) {
  const isDiff = useMemo(() => looksLikeDiff(output.text), [output.text])
  const body = isDiff ? <Diff text={output.text} /> : <AnsiBlock text={output.text} />
  const lines = output.text.trimEnd().split('\n').length
  return (
    <>
      {lines <= SHORT_LINES ? (
        body
      ) : (
        <details>
          <summary>{lines} lines of output</summary>
          {body}
        </details>
      )}
      {output.truncated && <p class="dim small">Cut in the middle: the turn's raw output has all of it.</p>}
    </>
  )
}

function Folded({ title, text }: { title: string; text: string }) {
  return (
    <details>
      <summary>{title}</summary>
      <pre class="block" tabIndex={0}>
        {text}
      </pre>
    </details>
  )
}
