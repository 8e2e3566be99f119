/** Who uses this window, the clients of the media service with their tokens, and the room with its messages. */
import { createMediaClient, type Media, type MediaClient, type TusModule } from '../../client/client.js';
import { machineClock } from '../../client/clock.js';

export interface ChatMessage {
  readonly number: number;
  readonly at: string;
  readonly author: string;
  readonly text: string;
  readonly media: Media | null;
}

export interface Session {
  readonly name: string;
  /** With the token of the user. */
  readonly media: MediaClient;
  /** With that of a moderator. */
  readonly moderator: MediaClient;
  say(text: string, media: Media | null): Promise<void>;
}

const NAMES = ['ada', 'grace', 'hedy', 'joan', 'lise', 'mary', 'rosa', 'vera'];
const ASK_EVERY_MS = 1_000;

/** Each window is somebody else, and stays the same when it is loaded again. `?as=ada` chooses the name. */
export function openSession(): Session {
  const wanted = new URLSearchParams(location.search).get('as') ?? '';
  const kept = /^[a-z]{1,32}$/.test(wanted) ? wanted : sessionStorage.getItem('name');
  const name = kept ?? NAMES[Math.floor(Math.random() * NAMES.length)] ?? 'ada';
  sessionStorage.setItem('name', name);
  return {
    name,
    media: openClient(name, false),
    moderator: openClient('moderator', true),
    async say(text, media) {
      await postJson('/page/messages', { author: name, text, media });
    },
  };
}

/** Calls `onMessage` for each message of the room, old ones first; `onRestart` before it begins anew. */
export function followRoom(onMessage: (message: ChatMessage) => void, onRestart: () => void): void {
  let last = 0;
  let room: number | undefined;
  const ask = async (): Promise<void> => {
    const answer = await fetch(`/page/messages?after=${last}`);
    if (!answer.ok) return;
    const news = (await answer.json()) as { readonly room: number; readonly messages: readonly ChatMessage[] };
    if (room !== undefined && news.room !== room) {
      [last, room] = [0, undefined];
      onRestart();
      return;
    }
    room = news.room;
    for (const message of news.messages) {
      last = message.number;
      onMessage(message);
    }
  };
  const askAgain = (): void => {
    ask()
      .catch(() => undefined)
      .finally(() => machineClock.after(ASK_EVERY_MS, askAgain));
  };
  askAgain();
}

function openClient(subject: string, admin: boolean): MediaClient {
  let token: Promise<string> | undefined;
  return createMediaClient({
    baseUrl: location.origin,
    token({ refresh }) {
      if (refresh || token === undefined) token = fetchToken(subject, admin);
      return token;
    },
    loadTus,
  });
}

async function fetchToken(subject: string, admin: boolean): Promise<string> {
  return ((await postJson('/page/token', { subject, admin })) as { readonly token: string }).token;
}

async function postJson(path: string, body: unknown): Promise<unknown> {
  const headers = { 'content-type': 'application/json' };
  const answer = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path} was answered ${answer.status}`);
  return await answer.json();
}

/** The script of tus-js-client for pages without a bundler. */
function loadTus(): Promise<TusModule> {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = '/page/tus.js';
    script.addEventListener('load', () => resolve((globalThis as unknown as { readonly tus: TusModule }).tus));
    script.addEventListener('error', () => reject(new Error('tus-js-client is not installed')));
    document.head.append(script);
  });
}
