// A log of the epic as it grows: read whole, and again when the run has added to it.

import { useEffect, useRef, useState } from 'preact/hooks'
import type { EpicLog, LogName } from '../api/contracts'
import { readEpicLog } from '../api/runs'

/** A log that is written to without pause is read once in this time. */
const AT_MOST_EVERY_MS = 1_000

export type EpicLogState = { log: EpicLog } | { absent: string } | null

/** The log now; `additions` counts up with what the run adds to it. Null until the first answer. */
export function useEpicLog(runId: string, name: LogName, additions: number): EpicLogState {
  const [state, setState] = useState<EpicLogState>(null)
  const readMs = useRef(0)
  useEffect(() => {
    const gone = new AbortController()
    const read = (): void => {
      readMs.current = Date.now()
      readEpicLog(runId, name, gone.signal).then(
        (log) => setState({ log }),
        // What was read before is better than nothing.
        (error: Error) => gone.signal.aborted || setState((old) => (old && 'log' in old ? old : { absent: error.message })),
      )
    }
    const timer = setTimeout(read, Math.max(0, readMs.current + AT_MOST_EVERY_MS - Date.now()))
    return () => {
      clearTimeout(timer)
      gone.abort()
    }
  }, [runId, name, additions])
  return state
}
