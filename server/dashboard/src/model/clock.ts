// The time now, for "12s ago": one tick a second for the whole page.

import { useEffect, useState } from 'preact/hooks'

const TICK_MS = 1_000

export function useNow(active = true): number {
  const [now, setNow] = useState(Date.now())
  useEffect(() => {
    if (!active) return
    setNow(Date.now())
    const timer = setInterval(() => setNow(Date.now()), TICK_MS)
    return () => clearInterval(timer)
  }, [active])
  return now
}
