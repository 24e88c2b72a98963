// The frame of every page: where one can go, and whether what is shown is true.

import type { ComponentChildren } from 'preact'
import { signedIn } from '../api/http'
import { useNow } from '../model/clock'
import { type Connection, connection } from '../model/connection'
import { useStore } from '../model/store'
import { place } from '../router'
import { duration } from '../text/format'

export function Shell({ children }: { children: ComponentChildren }) {
  const { route } = useStore(place)
  const isIn = useStore(signedIn)
  const here = (page: string): 'page' | undefined => (route.page === page ? 'page' : undefined)
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href="/" aria-label="Cody, all runs">
          <svg viewBox="0 0 32 32" width="24" height="24" aria-hidden="true">
            <rect width="32" height="32" rx="8" class="brand-box" />
            <path d="M21.5 11.2A7 7 0 1 0 21.5 20.8" class="brand-c" />
            <circle cx="23" cy="16" r="2.4" class="brand-dot" />
          </svg>
          <span>Cody</span>
        </a>
        <nav aria-label="Pages">
          <a href="/" aria-current={here('runs')}>
            Runs
          </a>
          <a href="/health" aria-current={here('health')}>
            Health
          </a>
        </nav>
        <ConnectionState />
        <a class="button primary" href="/new" aria-current={here('new')}>
          New run
        </a>
      </header>
      <Outage />
      {isIn ? null : <SignedOut />}
      <main id="main" tabIndex={-1} class={`page page-${route.page}`}>
        {children}
      </main>
    </>
  )
}

const WORDS: Record<Connection['kind'], string> = {
  connecting: 'Connecting',
  live: 'Live',
  lost: 'Reconnecting',
  ended: 'Complete',
  refused: 'Not live',
  'signed-out': 'Signed out',
}

function ConnectionState() {
  const state = useStore(connection)
  return (
    <div class={`connection connection-${state.kind}`}>
      <span class="status-dot" aria-hidden="true" />
      <span role="status">{WORDS[state.kind]}</span>
    </div>
  )
}

/** A connection that is back in this time is not worth a line. */
const BLIP_MS = 1_000

/** Why what is shown may be out of date, and for how long. Its place is always there: a screen reader hears what comes into it,
 * but (a timer is silent) not the seconds that pass. */
function Outage() {
  const state = useStore(connection)
  const lost = state.kind === 'lost' ? state : null
  const forMs = useNow(lost !== null) - (lost?.sinceMs ?? 0)
  const shown = lost !== null && forMs > BLIP_MS
  return (
    <div class={shown ? 'outage' : undefined} role="status" aria-atomic={false}>
      {shown && (
        <>
          <span>What is shown may be out of date: {lost.reason}.</span>
          <span role="timer">Trying again for {duration(forMs)}</span>
        </>
      )}
    </div>
  )
}

function SignedOut() {
  return (
    <section class="signed-out" role="alert">
      <h2>You are signed out</h2>
      <p>
        Run <code>cody dashboard</code> on the machine that the server runs on, and open the link that it prints. This page goes
        on by itself as soon as the session is there.
      </p>
    </section>
  )
}
