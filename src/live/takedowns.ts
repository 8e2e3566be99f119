/** Takedowns as a table: what was taken down, and which edges have confirmed it. */
import { instant } from './format.js';
import { fillTable } from './table.js';

/** As `/takedowns` says it. */
export interface Takedown {
  readonly seq: number;
  readonly at: string;
  readonly cause: string;
  readonly ids: readonly string[];
  readonly media: number;
  readonly confirmed: readonly string[];
  readonly missing: readonly { readonly edge: string; readonly connected: boolean }[];
}

const CAUSES: Readonly<Record<string, string>> = {
  delete: 'deleted',
  quarantine: 'quarantined',
  restore: 'restored',
  expire: 'expired',
  visibility: 'visibility changed',
};

/** Fills the table `#takedowns`. `nobody`: what it says where there are no edges. */
export function showTakedowns(takedowns: readonly Takedown[], nothing: string, nobody = 'no edge is known'): void {
  fillTable(
    'takedowns',
    takedowns.map((each) => [instant(each.at), CAUSES[each.cause] ?? each.cause, idsOf(each), edgesOf(each, nobody)]),
    nothing,
  );
}

function idsOf({ ids, media }: Takedown): string {
  const more = media - ids.length;
  return `${ids.join(' ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function edgesOf({ confirmed, missing }: Takedown, nobody: string): string {
  if (confirmed.length + missing.length === 0) return nobody;
  const late = missing.map(({ edge, connected }) => (connected ? edge : `${edge} (away)`));
  const all = `${confirmed.length} of ${confirmed.length + missing.length}`;
  const names =
    confirmed.length === 0 ? '' : `: ${confirmed.slice(0, 10).join(', ')}${confirmed.length > 10 ? ', …' : ''}`;
  return late.length === 0
    ? `${all}${names}`
    : `${all}${names}; not ${late.slice(0, 10).join(', ')}${late.length > 10 ? ', …' : ''}`;
}
