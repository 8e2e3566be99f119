/** Media that are withheld, and all media of one owner, each with what may be done about them. */
import { byId, element } from '../../../src/live/element.js';
import { bytes, instant } from '../../../src/live/format.js';
import type { Operator } from '../../../src/live/operator.js';
import { type Cell, fillTable } from '../../../src/live/table.js';
import { askReason } from './reason.js';

/** As the pages of `/v1/admin/media` say it. */
interface Media {
  readonly id: string;
  readonly state: string;
  readonly owner: string;
  readonly filename: string | null;
  readonly created_at: string;
  readonly mime?: string;
  readonly size?: number;
  readonly quarantine?: {
    readonly at: string;
    readonly by: string;
    readonly reason: string | null;
    readonly cause: string;
  } | null;
}

type Act = 'quarantine' | 'restore' | 'delete';

interface List {
  readonly path: string;
  readonly media: readonly Media[];
  readonly next: string | null;
}

const PAGE = 50;
/** More requests than one act on an owner may ever need: each does as much as the origin does at once. */
const STEPS_MAX = 10_000;

/** `changed` is called after an act. */
export function openMedia(operator: Operator, changed: () => void): void {
  const say = (place: string, text: string): void => {
    byId(place, HTMLElement).textContent = text;
  };

  /** Reads one list after the other; `more` goes on where the last of them ended. */
  function openList(name: 'withheld' | 'owned', columns: (media: Media) => readonly Cell[], nothing: string) {
    const more = byId(`${name}-more`, HTMLButtonElement);
    let lists: readonly List[] = [];
    const show = (): void => {
      const rows = lists.flatMap(({ media }) => media).map((media) => [...columns(media), actsOn(media)]);
      fillTable(name, rows, nothing);
      more.hidden = lists.every(({ next }) => next === null);
    };
    async function read(list: List): Promise<List> {
      const cursor = list.next === null ? '' : `&cursor=${list.next}`;
      const { ok, told, trouble } = await operator.ask('GET', `${list.path}&limit=${PAGE}${cursor}`);
      if (!ok) {
        say(`${name}-answer`, trouble);
        return { ...list, next: null };
      }
      say(`${name}-answer`, '');
      return {
        ...list,
        media: [...list.media, ...(told['items'] as readonly Media[])],
        next: told['next'] as string | null,
      };
    }
    async function open(paths: readonly string[]): Promise<void> {
      lists = await Promise.all(paths.map((path) => read({ path, media: [], next: null })));
      show();
    }
    more.addEventListener('click', () => {
      void Promise.all(lists.map(async (list) => (list.next === null ? list : await read(list)))).then((longer) => {
        lists = longer;
        show();
      });
    });
    const again = async (): Promise<void> => {
      if (lists.length > 0) await open(lists.map(({ path }) => path));
    };

    function actsOn(media: Media): HTMLElement {
      const acts = actsFor(media).map(([act, label]) => {
        const button = element('button', { type: 'button', className: act === 'delete' ? 'danger' : '' }, label);
        button.setAttribute('aria-label', `${label} ${media.id}`);
        button.addEventListener('click', () => void actOn(media, act, label));
        return button;
      });
      return element('div', { className: 'row' }, ...acts);
    }

    async function actOn({ id, owner, filename }: Media, act: Act, label: string): Promise<void> {
      const about = `${id}, uploaded by ${owner}${filename === null ? '' : `, ${filename}`}`;
      const effect = act === 'delete' ? 'The id is deleted, for good.' : 'This covers the same bytes under every id.';
      const reason = await askReason(`${label}?`, `${about}. ${effect}`, label);
      if (reason === undefined) return;
      const query = `?wait=edges&reason=${encodeURIComponent(reason)}`;
      const path = act === 'delete' ? `/v1/media/${id}` : `/v1/media/${id}/quarantine`;
      const answer = await operator.ask(act === 'quarantine' ? 'POST' : 'DELETE', `${path}${query}`);
      say('act-answer', answer.ok ? `${id}: ${done(act)}. ${confirmedBy(answer.header)}` : `${id}: ${answer.trouble}`);
      await again();
      changed();
    }
    return { open, again };
  }

  const withheld = openList(
    'withheld',
    ({ id, state, owner, mime, size, quarantine }) => [
      element('span', { className: 'code' }, id),
      state === 'held' ? 'awaits the scanner' : (WITHHELD[quarantine?.cause ?? ''] ?? 'withheld'),
      quarantine?.reason ?? '',
      quarantine === undefined || quarantine === null ? '' : `${instant(quarantine.at)} by ${quarantine.by}`,
      owner,
      `${mime ?? ''} ${size === undefined ? '' : bytes(size)}`,
    ],
    'Nothing is withheld.',
  );
  const owned = openList(
    'owned',
    ({ id, state, filename, mime, size, created_at }) => [
      element('span', { className: 'code' }, id),
      state,
      filename ?? '',
      `${mime ?? ''} ${size === undefined ? '' : bytes(size)}`,
      instant(created_at),
    ],
    'No media of this owner.',
  );

  byId('withheld-read', HTMLButtonElement).addEventListener('click', () => {
    void withheld.open(['quarantined', 'held'].map((state) => `/v1/admin/media?state=${state}`));
  });

  const input = byId('owner', HTMLInputElement);
  let owner = '';
  byId('owner-form', HTMLFormElement).addEventListener('submit', (event) => {
    event.preventDefault();
    owner = input.value;
    void owned.open([`/v1/admin/media?owner=${encodeURIComponent(owner)}`]).then(() => {
      byId('owner-acts', HTMLElement).hidden = false;
      say('owner-shown', owner);
    });
  });
  for (const [act, label] of [
    ['quarantine', 'Quarantine all'],
    ['restore', 'Restore all'],
    ['delete', 'Delete all'],
  ] as const) {
    byId(`owner-${act}`, HTMLButtonElement).addEventListener('click', () => {
      void actOnOwner(act, label);
    });
  }

  async function actOnOwner(act: Act, label: string): Promise<void> {
    const subject = owner;
    const reason = await askReason(`${label}?`, `All media that ${subject} has uploaded.`, label);
    if (reason === undefined) return;
    let media = 0;
    let cursor = '';
    for (let step = 0; step < STEPS_MAX; step += 1) {
      const query = `?wait=edges&reason=${encodeURIComponent(reason)}${cursor}`;
      const answer = await operator.ask('POST', `/v1/admin/owners/${encodeURIComponent(subject)}/${act}${query}`);
      if (!answer.ok) {
        say('act-answer', `${subject}: ${answer.trouble} ${media} were ${done(act)} before.`);
        break;
      }
      media += Number(answer.told['media']);
      const next = answer.told['next'] as string | null;
      say(
        'act-answer',
        `${subject}: ${media} ${done(act)}${next === null ? '. ' : ', going on …'} ${confirmedBy(answer.header)}`,
      );
      if (next === null) break;
      cursor = `&cursor=${next}`;
    }
    await owned.again();
    await withheld.again();
    changed();
  }
}

const WITHHELD: Readonly<Record<string, string>> = {
  admin: 'quarantined',
  rot: 'stored bytes are damaged',
  held: 'awaits the scanner',
};

/** What is damaged is healed by the next upload of the same bytes, and not by giving them out as they are. */
function actsFor({ state, quarantine }: Media): readonly (readonly [Act, string])[] {
  if (quarantine?.cause === 'rot') return [['delete', 'Delete']];
  switch (state) {
    case 'live':
      return [
        ['quarantine', 'Quarantine'],
        ['delete', 'Delete'],
      ];
    case 'quarantined':
    case 'held':
      return [
        ['restore', 'Release'],
        ['delete', 'Delete'],
      ];
    default:
      return [];
  }
}

function done(act: Act): string {
  return { quarantine: 'quarantined', restore: 'released', delete: 'deleted' }[act];
}

function confirmedBy(header: (name: string) => string | null): string {
  const [confirmed, known] = (header('takedown-confirmed') ?? '').split('/');
  return known === undefined ? '' : `${confirmed} of ${known} edges have confirmed.`;
}
