// Prompts: what a turn was told, and what the next one would be.

import { useEffect, useState } from 'preact/hooks'
import type { PromptAnswer } from '../api/contracts'
import { readPrompt, readTurnPrompt } from '../api/runs'
import { grouped } from '../text/format'
import { Notice } from './bits'

type Found = { prompt: PromptAnswer | null } | { problem: string } | null

/** What `ask` gives, asked again when `when` changes; null until then. */
function useAnswer(ask: ((signal: AbortSignal) => Promise<PromptAnswer | null>) | null, when: unknown[]): Found {
  const [found, setFound] = useState<Found>(null)
  useEffect(() => {
    if (!ask) return
    const gone = new AbortController()
    ask(gone.signal).then(
      (prompt) => setFound({ prompt }),
      (error: Error) => gone.signal.aborted || setFound({ problem: error.message }),
    )
    return () => gone.abort()
  }, when)
  return found
}

export function TurnPrompt({ runId, turn }: { runId: string; turn: number }) {
  const [open, setOpen] = useState(false)
  const found = useAnswer(open ? (signal) => readTurnPrompt(runId, turn, signal) : null, [open, runId, turn])
  return (
    <details class="section" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Prompt</summary>
      <Answer found={found} absent="This server does not serve the prompts of past turns. “Next prompt” has what the next turn gets." />
    </details>
  )
}

/** Each turn changes the logs that the prompt is made of. */
export function NextPrompt({ runId, turns }: { runId: string; turns: number }) {
  const found = useAnswer((signal) => readPrompt(runId, signal), [runId, turns])
  return <Answer found={found} absent="" />
}

function Answer({ found, absent }: { found: Found; absent: string }) {
  if (!found) return <p class="dim">Loading …</p>
  if ('problem' in found) return <Notice tone="bad">{found.problem}</Notice>
  return found.prompt ? <PromptText prompt={found.prompt} /> : <p class="dim">{absent}</p>
}

export function PromptText({ prompt }: { prompt: PromptAnswer }) {
  return (
    <div class="prompt">
      <p class="dim small">
        {grouped(prompt.bytes)} bytes · sha256 <code>{prompt.sha256.slice(0, 16)}</code>
      </p>
      <pre class="block wrap" tabIndex={0} aria-label="Prompt">
        {prompt.prompt}
      </pre>
    </div>
  )
}
