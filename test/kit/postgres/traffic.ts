/**
 * What clients do at several origins while those are killed: uploads, resumable uploads whose parts go to several origins,
 * thumbnails and deletes. It keeps what was answered; whether that still holds is for the test to judge.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { type HttpResponse, member, type RequestOptions, sendRequest } from '../http/request.js';
import { png } from '../media.js';
import { PATCH, TUS } from '../origin/tus-requests.js';
import { asCaller } from '../processes.js';
import { until } from '../until.js';
import type { Cluster, Member } from './cluster.js';

const CLIENTS = 6;
/** Attempts at one resumable upload. Then it is abandoned, as by a client that leaves. */
const ATTEMPTS_MAX = 40;

/** A file that clients upload and delete, and what they were answered. */
export interface File {
  readonly bytes: Buffer;
  /** By id; `unknown`: an answer was lost. */
  readonly copies: Map<string, 'live' | 'deleted' | 'unknown'>;
  busy: boolean;
}

export class Traffic {
  readonly files: File[] = [];
  readonly #cluster: Cluster;
  readonly #random: () => number;
  answered = 0;
  /** How many answers of each kind there were. */
  readonly done = { upload: 0, resumable: 0, thumbnail: 0, delete: 0 };
  /** By what was answered with. */
  readonly refused = new Map<number, number>();
  broken = 0;
  /** What contradicts an earlier answer. */
  readonly wrong: string[] = [];
  /** Origins that are meant to answer. */
  alive: Member[];
  #stop = false;
  readonly #clients: Promise<void>[];

  constructor(cluster: Cluster, origins: readonly Member[], random: () => number) {
    this.#cluster = cluster;
    this.#random = random;
    this.alive = [...origins];
    this.#clients = Array.from({ length: CLIENTS }, () => this.#work());
  }

  async more(count: number): Promise<void> {
    const from = this.answered;
    await until(`${count} more answers`, () => this.answered >= from + count);
  }

  async stop(): Promise<void> {
    this.#stop = true;
    await Promise.all(this.#clients);
  }

  async #work(): Promise<void> {
    while (!this.#stop) {
      const file = this.#pick();
      file.busy = true;
      const live = [...file.copies].filter(([, state]) => state === 'live').map(([id]) => id);
      const id = live[Math.floor(this.#random() * live.length)];
      const drawn = this.#random();
      if (id === undefined || drawn < 0.4) await this.#upload(file);
      else if (drawn < 0.55) await this.#uploadInParts(file);
      else if (drawn < 0.7) await this.#look(id);
      else await this.#remove(file, id);
      file.busy = false;
    }
  }

  #pick(): File {
    const known = this.files[this.files.length - 1 - Math.floor(this.#random() * 40)];
    if (known !== undefined && !known.busy && this.#random() < 0.6) return known;
    const file: File = { bytes: png(this.files.length), copies: new Map(), busy: false };
    this.files.push(file);
    return file;
  }

  async #upload(file: File): Promise<void> {
    const answer = await this.#ask(`/v1/media?public=${this.#random() < 0.5}`, {
      method: 'POST',
      headers: { 'content-type': 'image/png' },
      body: file.bytes,
    });
    if (answer?.status !== 201 && answer?.status !== 200) return;
    file.copies.set(member(answer, 'id'), 'live');
    this.done.upload += 1;
  }

  /** Each part goes to any origin, at the offset that any of them tells. */
  async #uploadInParts(file: File): Promise<void> {
    const { bytes } = file;
    const created = await this.#ask('/v1/uploads', {
      method: 'POST',
      headers: { ...TUS, 'upload-length': String(bytes.length) },
    });
    const path = created?.headers.location;
    if (created?.status !== 201 || path === undefined) return;
    let confirmed = 0;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const told = await this.#ask(path, { method: 'HEAD', headers: TUS });
      if (told?.status !== 200) continue;
      const offset = Number(told.headers['upload-offset']);
      if (offset < confirmed) this.wrong.push(`${path} is at ${offset}, after ${confirmed} were confirmed`);
      const location = told.headers['media-location'];
      if (location !== undefined) {
        file.copies.set(String(location).slice(-26), 'live');
        this.done.resumable += 1;
        return;
      }
      const end = Math.min(bytes.length, offset + 1 + Math.floor(this.#random() * bytes.length));
      const headers = { ...PATCH, 'upload-offset': String(offset) };
      const answer = await this.#ask(path, { method: 'PATCH', headers, body: bytes.subarray(offset, end) });
      if (answer?.status === 204) confirmed = end;
    }
  }

  async #look(id: string): Promise<void> {
    const answer = await this.#ask(`/v1/media/${id}/thumb`, {});
    if (answer?.status !== 200) return;
    this.done.thumbnail += 1;
    if (answer.bytes.length === 0) this.wrong.push(`the thumbnail of ${id} is empty`);
  }

  async #remove(file: File, id: string): Promise<void> {
    file.copies.set(id, 'unknown');
    const path = `/v1/media/${id}`;
    const answer = await this.#ask(path, { method: 'DELETE' }, this.#cluster.processes.admin);
    if (answer?.status !== 204) return;
    file.copies.set(id, 'deleted');
    this.done.delete += 1;
  }

  async #ask(
    path: string,
    options: RequestOptions,
    caller: Readonly<Record<string, string>> = this.#cluster.processes.user,
  ): Promise<HttpResponse | undefined> {
    const origin = this.alive[Math.floor(this.#random() * this.alive.length)];
    if (origin === undefined) throw new Error('no origin is left');
    const answer = await sendRequest(origin.url + path, asCaller(caller, options)).catch(() => undefined);
    if (answer === undefined) this.broken += 1;
    else if (answer.status < 300) this.answered += 1;
    else this.refused.set(answer.status, (this.refused.get(answer.status) ?? 0) + 1);
    if (answer === undefined || answer.status >= 300) await pause(20);
    return answer;
  }
}
