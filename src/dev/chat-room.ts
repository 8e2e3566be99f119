/** What was said in the chat of the page, in memory: the last messages, numbered. */
import type { Clock } from '../clock.js';

export interface Message {
  readonly number: number;
  readonly at: string;
  readonly author: string;
  readonly text: string;
  /** The service's description of the media, as the client got it; null for words alone. */
  readonly media: Readonly<Record<string, unknown>> | null;
}

export interface Messages {
  /** Another one after a restart, when everybody begins anew. */
  readonly room: number;
  readonly messages: readonly Message[];
}

const MESSAGES_MAX = 200;
const TEXT_MAX = 2_000;

export class ChatRoom {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #room: number;
  #messages: readonly Message[] = [];
  #last = 0;

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
    this.#room = clock.now();
  }

  since(number: number): Messages {
    return { room: this.#room, messages: this.#messages.filter((message) => message.number > number) };
  }

  /** Undefined if it is no message. */
  add({ author, text = '', media = null }: Readonly<Record<string, unknown>>): Message | undefined {
    if (typeof author !== 'string' || author === '' || author.length > 32) return undefined;
    if (typeof text !== 'string' || text.length > TEXT_MAX || typeof media !== 'object') return undefined;
    if (text === '' && media === null) return undefined;
    this.#last += 1;
    const at = new Date(this.#clock.now()).toISOString();
    const message = { number: this.#last, at, author, text, media: media as Message['media'] };
    this.#messages = [...this.#messages, message].slice(-MESSAGES_MAX);
    return message;
  }
}
