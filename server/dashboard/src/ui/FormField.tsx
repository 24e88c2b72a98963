// One field of a form, with its hint and with what the server said of it.

import type { Field } from '../model/run_form'

interface Props {
  field: Field
  text: string
  problem: string | undefined
  onText: (path: string, text: string) => void
}

export function FormField({ field, text, problem, onText }: Props) {
  const id = `field-${field.path.replaceAll('.', '-')}`
  const described = [field.hint && `${id}-hint`, problem && `${id}-problem`].filter(Boolean).join(' ') || undefined
  const common = {
    id,
    name: field.path,
    'aria-invalid': problem ? ('true' as const) : undefined,
    'aria-describedby': described,
  }
  const onInput = (event: { currentTarget: { value: string } }): void => onText(field.path, event.currentTarget.value)
  return (
    <div class={`field field-${field.kind} ${problem ? 'field-wrong' : ''}`}>
      <label for={id}>{field.label}</label>
      {field.kind === 'choice' ? (
        <select {...common} value={text} onChange={onInput}>
          {field.choices?.map((choice) => (
            <option key={choice} value={choice}>
              {choice}
            </option>
          ))}
        </select>
      ) : field.kind === 'lines' || field.kind === 'words' || field.kind === 'env' ? (
        <textarea {...common} rows={3} spellcheck={false} value={text} onInput={onInput} />
      ) : (
        <input
          {...common}
          type="text"
          inputMode={field.kind === 'number' ? 'decimal' : undefined}
          autocomplete="off"
          spellcheck={false}
          placeholder={field.empty}
          value={text}
          onInput={onInput}
        />
      )}
      {field.hint && (
        <p class="hint" id={`${id}-hint`}>
          {field.hint}
        </p>
      )}
      {problem && (
        <p class="problem" id={`${id}-problem`}>
          {problem}
        </p>
      )}
    </div>
  )
}
