/** Tells callers apart in the logs of both processes without naming them. */
import { hash } from 'node:crypto';
import type { Caller } from './grant.js';

const MARK_LENGTH = 12;
/** A caller is remembered with its token, so that its mark is computed once. */
const marks = new WeakMap<object, string>();

/** The same for a caller at every edge and origin: hexadecimal digits of a hash of issuer and subject. */
export function subjectMark(caller: Pick<Caller, 'issuer' | 'subject'>): string {
  const known = marks.get(caller);
  if (known !== undefined) return known;
  const mark = hash('sha256', `${caller.issuer}\n${caller.subject}`).slice(0, MARK_LENGTH);
  marks.set(caller, mark);
  return mark;
}
