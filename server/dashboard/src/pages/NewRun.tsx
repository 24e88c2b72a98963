// A new run: what it works on, how, and what it would tell the agent first.

import { useEffect, useRef, useState } from 'preact/hooks'
import type { PromptAnswer } from '../api/contracts'
import { ApiError } from '../api/http'
import { listRuns, previewRun, readRun, startRun } from '../api/runs'
import { connection, failed, told } from '../model/connection'
import { poll } from '../model/polling'
import { FIELDS, type Field, type FormText, emptyForm, fieldOf, formOf, isShown, requestOf, withheldOf } from '../model/run_form'
import { useStore } from '../model/store'
import { go, place } from '../router'
import { Notice } from '../ui/bits'
import { FormField } from '../ui/FormField'
import { PromptText } from '../ui/prompts'

interface Problems {
  summary: string
  fields: Record<string, string>
}

/** The server is asked whether it is there: a form has nothing else that would tell. */
const ASK_MS = 3_000

type Preview = { prompt: PromptAnswer } | { absent: true } | null

export function NewRun() {
  const { query } = useStore(place)
  const like = query.get('from')
  const [text, setText] = useState<FormText>(emptyForm)
  const form = useRef<HTMLFormElement>(null)
  const [problems, setProblems] = useState<Problems | null>(null)
  const [busy, setBusy] = useState<'' | 'preview' | 'start'>('')
  const [preview, setPreview] = useState<Preview>(null)
  /** Of the run that this one shall be like: whether it has an environment, and what of that is not told. */
  const [likeEnv, setLikeEnv] = useState({ some: false, withheld: [] as string[] })
  const { withheld } = likeEnv
  // The same request twice is the same run: a double click, or a second try after an answer that was lost.
  const sent = useRef({ body: '', key: '' })

  useEffect(() => {
    document.title = 'New run · Cody'
    connection.set({ kind: 'connecting' })
    return poll(ASK_MS, async (signal) => void (await listRuns({ limit: 1 }, signal)))
  }, [])
  useEffect(() => {
    if (!like) return
    readRun(like).then(
      (run) => {
        setText(formOf(run))
        setLikeEnv({ some: Object.keys(run.config.env ?? {}).length > 0, withheld: withheldOf(run) })
      },
      (error: Error) => setProblems({ summary: error.message, fields: {} }),
    )
  }, [like])

  // Once they are drawn: the reader goes on at the first field that is wrong.
  useEffect(() => {
    if (!problems) return
    const wrong = form.current?.querySelector<HTMLElement>('[aria-invalid=true]')
    ;(wrong ?? form.current?.querySelector<HTMLElement>('.form-problem'))?.focus()
  }, [problems])

  const attempt = async (what: 'preview' | 'start', work: () => Promise<void>): Promise<void> => {
    setBusy(what)
    setProblems(null)
    try {
      await work()
      told(null)
    } catch (error) {
      // A refusal is an answer: the server is there.
      if (error instanceof ApiError && error.status !== 401) told(null)
      else failed(error)
      setProblems(problemsOf(error, what))
    } finally {
      setBusy('')
    }
  }
  const start = (): Promise<void> =>
    attempt('start', async () => {
      const request = requestOf(text)
      const body = JSON.stringify(request)
      if (sent.current.body !== body) sent.current = { body, key: crypto.randomUUID() }
      go(`/runs/${(await startRun(request, sent.current.key)).runId}`)
    })
  const look = (): Promise<void> =>
    attempt('preview', async () => {
      const prompt = await previewRun(requestOf(text))
      setPreview(prompt ? { prompt } : { absent: true })
    })
  const put = (path: string, value: string): void => {
    setText({ ...text, [path]: value })
    setPreview(null)
  }
  const section = (name: Field['section']) =>
    FIELDS.filter((field) => field.section === name && isShown(field, text)).map((field) => (
      <FormField key={field.path} field={field} text={text[field.path] ?? ''} problem={problems?.fields[field.path]} onText={put} />
    ))
  const moreIsWrong = FIELDS.some((field) => field.section === 'more' && problems?.fields[field.path])
  return (
    <form
      ref={form}
      class="new-run"
      noValidate
      onSubmit={(event) => {
        event.preventDefault()
        void start()
      }}
    >
      <div class="page-head">
        <h1>New run</h1>
      </div>
      {problems && (
        <div class="form-problem" tabIndex={-1}>
          <Notice tone="bad">{problems.summary}</Notice>
        </div>
      )}
      {withheld.length > 0 && (
        <Notice tone="warn">
          Left out of the environment, because the server tells no secrets: <code>{withheld.join(', ')}</code>. If the run needs{' '}
          {withheld.length === 1 ? 'it, add it' : 'them, add them'} again under More.
        </Notice>
      )}
      <fieldset>
        <legend>Work</legend>
        <div class="fields fields-wide">{section('work')}</div>
      </fieldset>
      <fieldset>
        <legend>Agent</legend>
        <div class="fields">{section('agent')}</div>
      </fieldset>
      <fieldset>
        <legend>Limits and end</legend>
        <div class="fields">{section('limits')}</div>
      </fieldset>
      <details class="section" open={moreIsWrong || likeEnv.some || undefined}>
        <summary>More</summary>
        <div class="fields fields-wide">{section('more')}</div>
      </details>
      <div class="form-actions">
        <button type="submit" class="button primary" disabled={busy !== ''}>
          {busy === 'start' ? 'Starting …' : 'Start the run'}
        </button>
        <button type="button" class="button" disabled={busy !== ''} onClick={() => void look()}>
          {busy === 'preview' ? 'Reading …' : 'Show the prompt'}
        </button>
        <span class="dim small">The prompt is made from the epic's files; showing it starts nothing.</span>
      </div>
      {preview && 'absent' in preview && <Notice tone="warn">This server has no preview. On the command line: cody prompt</Notice>}
      {preview && 'prompt' in preview && (
        <section aria-label="The first prompt">
          <h2>The first prompt</h2>
          <PromptText text={preview.prompt.prompt} sha256={preview.prompt.sha256} label="Prompt" />
        </section>
      )}
    </form>
  )
}

/** The server's words, each at its field; what belongs to no field is said above. */
function problemsOf(error: unknown, what: 'preview' | 'start'): Problems {
  if (!(error instanceof ApiError)) {
    const said = error instanceof Error ? error.message : String(error)
    // The request may have arrived and only its answer be lost.
    const then = what === 'start' ? 'The run may have started: trying again without a change gives the same run.' : 'Try again.'
    return { summary: `No answer came: ${said}. ${then}`, fields: {} }
  }
  const fields: Record<string, string> = {}
  const others: string[] = []
  for (const { field, message } of error.fields) {
    const path = fieldOf(field)
    if (path) fields[path] = fields[path] ? `${fields[path]}; ${message}` : message
    else others.push(`${field}: ${message}`)
  }
  const count = Object.keys(fields).length
  if (count === 0) return { summary: others.join('; ') || error.message, fields }
  return { summary: [count === 1 ? 'One field needs another look.' : `${count} fields need another look.`, ...others].join(' '), fields }
}
