/** Rows of a table from what a process has told. Everything is text, whatever it looks like. */
import { byId, element } from './element.js';

export type Cell = string | Node;

/** Fills the body of a table. The first cell of each row is its heading. Without rows it says `nothing`. */
export function fillTable(id: string, rows: readonly (readonly Cell[])[], nothing: string): void {
  const body = byId(id, HTMLTableSectionElement);
  const columns = body.closest('table')?.tHead?.rows[0]?.cells.length ?? 1;
  const made = rows.map(([heading = '', ...cells]) =>
    element('tr', {}, element('th', { scope: 'row' }, heading), ...cells.map((cell) => element('td', {}, cell))),
  );
  const empty = element('tr', {}, element('td', { colSpan: columns, className: 'nothing' }, nothing));
  const focused = focusIn(body);
  body.replaceChildren(...(made.length === 0 ? [empty] : made));
  letScroll(body);
  if (focused !== undefined) focusAgain(body, focused);
}

interface Focused {
  readonly name: string | null;
  readonly row: number;
}

/** Where the keyboard is, if it is in this table. */
function focusIn(body: HTMLTableSectionElement): Focused | undefined {
  const { activeElement } = document;
  if (activeElement === null || !body.contains(activeElement)) return undefined;
  const row = [...body.rows].findIndex((each) => each.contains(activeElement));
  return { name: activeElement.getAttribute('aria-label'), row };
}

/** To what has the same name; otherwise to where it was, or to the last row. Without any, to the button of the section. */
function focusAgain(body: HTMLTableSectionElement, { name, row }: Focused): void {
  const buttons = [...body.querySelectorAll('button')];
  const same = buttons.find((each) => each.getAttribute('aria-label') === name);
  const near = [...body.rows].slice(0, row + 1).findLast((each) => each.querySelector('button') !== null);
  const other = near?.querySelector('button') ?? buttons[0] ?? body.closest('section')?.querySelector('button');
  (same ?? other)?.focus();
}

/** A table that is wider than its place is scrolled with the keyboard too, and then has a name. */
function letScroll(body: HTMLElement): void {
  const place = body.closest<HTMLElement>('.scroll');
  if (place === null) return;
  if (place.scrollWidth <= place.clientWidth) {
    for (const name of ['tabindex', 'role', 'aria-labelledby']) place.removeAttribute(name);
    return;
  }
  place.tabIndex = 0;
  place.setAttribute('role', 'group');
  place.setAttribute('aria-labelledby', place.closest('section')?.getAttribute('aria-labelledby') ?? '');
}
