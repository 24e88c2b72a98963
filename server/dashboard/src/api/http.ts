// Calls of the REST API. Every failure is one of the two errors below.

import { Store } from '../model/store'

/** False once the server has said 401: the session is missing or over. */
export const signedIn = new Store(true)

export interface FieldProblem {
  field: string
  message: string
}

/** The server's refusal, in its own words. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly details: Record<string, unknown> = {},
  ) {
    super(message)
  }

  get fields(): FieldProblem[] {
    const { fields, field } = this.details
    if (Array.isArray(fields)) return fields as FieldProblem[]
    return typeof field === 'string' ? [{ field, message: this.message }] : []
  }
}

/** No answer at all: the server is away, or the network is. */
export class Unreachable extends Error {}

const TIMEOUT_MS = 20_000
/** For what is asked again and again: how long the page may say "Live" of a server that has stopped answering. */
export const PROBE_MS = 8_000

interface Options {
  method?: 'GET' | 'POST'
  body?: unknown
  headers?: Record<string, string>
  signal?: AbortSignal
  /** The whole answer is here in this time, or there is none. */
  timeoutMs?: number
}

/** A JSON answer. Raises ApiError, Unreachable; an abort of the caller's own signal is raised as it is. */
export async function call<T>(path: string, options: Options = {}): Promise<T> {
  const response = await request(path, options)
  try {
    return (await response.json()) as T
  } catch (error) {
    if (options.signal?.aborted) throw error
    throw new Unreachable("the server's answer broke off")
  }
}

export async function request(path: string, options: Options = {}): Promise<Response> {
  const { method = 'GET', body, headers, signal, timeoutMs = TIMEOUT_MS } = options
  const deadline = AbortSignal.timeout(timeoutMs)
  let response: Response
  try {
    response = await fetch(path, {
      method,
      credentials: 'same-origin',
      headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
    })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new Unreachable('the server does not answer')
  }
  if (!response.ok) throw await refusal(response)
  signedIn.set(true)
  return response
}

/** What a response that is not ok says. */
export async function refusal(response: Response): Promise<ApiError> {
  if (response.status === 401) signedIn.set(false)
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string; details?: Record<string, unknown> } }
    return new ApiError(response.status, error.code, error.message, error.details)
  } catch {
    return new ApiError(response.status, 'unreadable', `the server answered ${response.status} without a reason`)
  }
}
