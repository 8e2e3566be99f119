/**
 * Requests in the name of an operator. The token stays in the storage of the window, which ends with it, and is sent in
 * a field: it is in no address and no log.
 */
import { byId } from './element.js';

const KEPT_AS = 'operators-token';
const ANSWER_WITHIN_MS = 60_000;

export interface Answer {
  readonly ok: boolean;
  readonly status: number;
  /** The JSON document; of several lines, the last one. Empty without one. */
  readonly told: Readonly<Record<string, unknown>>;
  readonly header: (name: string) => string | null;
  /** Why it was refused; empty if it was not. */
  readonly trouble: string;
}

export interface Operator {
  /** Whether a token was given. */
  known(): boolean;
  ask(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<Answer>;
}

/** Ties the form `#operator` to it. `changed` is called at the start, and after a token was given or forgotten. */
export function openOperator(changed: () => void): Operator {
  const field = byId('token', HTMLInputElement);
  const token = (): string => sessionStorage.getItem(KEPT_AS) ?? '';
  function keep(given: string): void {
    if (given === '') sessionStorage.removeItem(KEPT_AS);
    else sessionStorage.setItem(KEPT_AS, given);
    field.value = '';
    byId('forget', HTMLButtonElement).hidden = given === '';
    byId('token-state', HTMLElement).textContent = given === '' ? '' : 'A token is given, for this window.';
    changed();
  }
  byId('operator', HTMLFormElement).addEventListener('submit', (event) => {
    event.preventDefault();
    if (field.value.trim() !== '') keep(field.value.trim());
  });
  byId('forget', HTMLButtonElement).addEventListener('click', () => {
    keep('');
    field.focus();
  });
  const operator: Operator = {
    known: () => token() !== '',
    async ask(method, path, body) {
      const headers = {
        ...(token() !== '' && { authorization: `Bearer ${token()}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      };
      const sent = body === undefined ? {} : { body: JSON.stringify(body) };
      try {
        const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
        const answer = await fetch(path, { method, headers, cache: 'no-store', signal, ...sent });
        const told = toldIn(await answer.text());
        const said = told['detail'] ?? told['title'];
        const refused = typeof said === 'string' ? said : `Refused (${answer.status}).`;
        return {
          ok: answer.ok,
          status: answer.status,
          told,
          header: (name) => answer.headers.get(name),
          trouble: answer.ok ? '' : answer.status === 401 ? `${refused} Give it at “Token for operators”.` : refused,
        };
      } catch {
        return { ok: false, status: 0, told: {}, header: () => null, trouble: 'No answer.' };
      }
    },
  };
  queueMicrotask(() => keep(token()));
  return operator;
}

function toldIn(text: string): Readonly<Record<string, unknown>> {
  const last = text.trimEnd().split('\n').at(-1) ?? '';
  try {
    const value: unknown = JSON.parse(last);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
