// Where the page is: the address is the state, so that every view can be linked to and gone back to.

import { Store } from './model/store'

export type Route =
  | { page: 'runs' }
  | { page: 'new' }
  | { page: 'health' }
  | { page: 'run'; runId: string }
  | { page: 'unknown' }

export interface Place {
  route: Route
  query: URLSearchParams
}

const RUN = /^\/runs\/([0-9a-fA-F-]{36})$/

export function readPlace(path: string, search: string): Place {
  const query = new URLSearchParams(search)
  const run = RUN.exec(path)
  if (run?.[1]) return { route: { page: 'run', runId: run[1].toLowerCase() }, query }
  if (path === '/') return { route: { page: 'runs' }, query }
  if (path === '/new') return { route: { page: 'new' }, query }
  if (path === '/health') return { route: { page: 'health' }, query }
  return { route: { page: 'unknown' }, query }
}

export const place = new Store<Place>({ route: { page: 'runs' }, query: new URLSearchParams() })

const arrive = (): void => place.set(readPlace(location.pathname, location.search))

/** Go to an address of this page; `replace` for what the back button should not come back to. */
export function go(to: string, { replace = false } = {}): void {
  if (to === location.pathname + location.search) return
  history[replace ? 'replaceState' : 'pushState'](null, '', to)
  turnTo()
}

let shownPath = ''

/** Show what the address says. On another page, as a page load would: the reader begins at the top, a screen reader hears where
 * it is; what had the focus may be gone with the page before. */
function turnTo(): void {
  const moved = location.pathname !== shownPath
  shownPath = location.pathname
  arrive()
  if (moved) requestAnimationFrame(() => document.getElementById('main')?.focus({ preventScroll: true }))
}

/** The current address with some parameters changed; null takes one out. */
export function withQuery(changes: Record<string, string | null>): string {
  const query = new URLSearchParams(location.search)
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') query.delete(name)
    else query.set(name, value)
  }
  const text = query.toString()
  return location.pathname + (text ? `?${text}` : '')
}

/** Links within the page are followed without loading it again, unless the reader wants a new tab. */
export function startRouter(): void {
  shownPath = location.pathname
  arrive()
  addEventListener('popstate', turnTo)
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    const link = (event.target as Element | null)?.closest('a')
    if (!link || link.target || link.origin !== location.origin || link.hasAttribute('download')) return
    if (readPlace(link.pathname, '').route.page === 'unknown') return
    // A place in this very page: the browser knows how to go there, and moves the focus.
    if (link.hash && link.pathname === location.pathname && link.search === location.search) return
    event.preventDefault()
    go(link.pathname + link.search)
  })
}
