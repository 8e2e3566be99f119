/**
 * One message in the log: words, or media with the blurred preview first, then the
 * thumbnail; films that seek, recordings, files; who may see it; what the edge said
 * about each answer; and that it is gone, as soon as the edge says so.
 */
import { type Media, MediaError, type MediaLink, thumbhashUrl } from '../../client/client.js';
import { machineClock } from '../../client/clock.js';
import { element } from '../../live/element.js';
import type { ChatMessage, Session } from './session.js';

const WIDTH = 360;
/** How often a window asks whether the media are still there. */
const LOOK_EVERY_MS = 1_500;
const PICTURES = 'image/avif,image/webp,image/*';

export function showMessage(session: Session, message: ChatMessage): HTMLLIElement {
  const { author, at, text, media } = message;
  const time = element('time', { dateTime: at }, new Date(at).toLocaleTimeString([], { timeStyle: 'short' }));
  const item = element('li', { className: author === session.name ? 'message mine' : 'message' });
  item.append(element('header', {}, element('strong', {}, author), time));
  if (text !== '') item.append(element('p', {}, text));
  if (media !== null) item.append(showMedia(session, media));
  return item;
}

function showMedia(session: Session, media: Media): HTMLElement {
  const said = new Map<string, string>();
  const summary = element('summary', {}, 'Cache-Status');
  const list = element('dl');
  const note = (what: string, status: string): void => {
    said.set(what, status);
    summary.textContent = shorten(status);
    list.replaceChildren(...[...said].flatMap(([name, words]) => [element('dt', {}, name), element('dd', {}, words)]));
  };
  const holder = element('div');
  const remove = element('button', { type: 'button', className: 'small' }, 'Take down');
  const seen = element('span', { className: 'seen' }, media.public ? 'Anyone' : 'Members only');
  const row = element('div', { className: 'row' }, seen, describe(media), remove);
  const caption = element('figcaption', {}, row, element('details', {}, summary, list));
  const figure = element('figure', {}, holder, caption);
  remove.title = 'With the token of a moderator';
  remove.setAttribute('aria-label', `Take down ${media.filename ?? kindOf(media.mime)}`);

  let stop = (): void => undefined;
  const gone = (error: MediaError): void => {
    stop();
    holder.replaceChildren(element('p', { className: 'gone' }, error.message));
    row.replaceChildren(seen);
    note('info', `${error.status ?? ''} ${error.code}`);
  };
  remove.addEventListener('click', () => {
    remove.disabled = true;
    session.moderator
      .remove(media.id, { waitForEdges: true })
      .catch((thrown: unknown) => note('taking down', thrown instanceof Error ? thrown.message : String(thrown)));
  });

  const player = playerOf(media);
  holder.append(player.element);
  stop = session.media.links.watch([media.id], (links) => {
    const link = links.get(media.id);
    if (link !== undefined) void player.show(session, link, note);
  });
  watchInfo(session, media, { note, gone, preview: player.preview });
  return figure;
}

interface Looks {
  readonly note: (what: string, status: string) => void;
  readonly gone: (error: MediaError) => void;
  readonly preview: (thumbhash: string) => void;
}

/** Asks the edge again and again what it knows, until the media are gone. */
function watchInfo({ media: client }: Session, media: Media, { note, gone, preview }: Looks): void {
  if (media.thumbhash !== null) preview(media.thumbhash);
  const look = async (): Promise<void> => {
    try {
      const answer = await client.fetch(`/v1/media/${media.id}/info`, { cache: 'no-store' });
      note('info', answer.headers.get('cache-status') ?? '');
      const { thumbhash } = (await answer.json()) as Media;
      if (thumbhash !== null) preview(thumbhash);
    } catch (thrown) {
      if (thrown instanceof MediaError && [403, 404, 410].includes(thrown.status ?? 0)) return gone(thrown);
    }
    machineClock.after(document.hidden ? LOOK_EVERY_MS * 10 : LOOK_EVERY_MS, () => void look());
  };
  void look();
}

interface Player {
  readonly element: HTMLElement;
  /** Shows the media under these addresses, which are replaced before they end. */
  show(session: Session, link: MediaLink, note: Looks['note']): Promise<void>;
  readonly preview: (thumbhash: string) => void;
}

function playerOf(media: Media): Player {
  const kind = kindOf(media.mime);
  if (kind === 'picture') return picture(media);
  if (kind === 'film') return film(media);
  if (kind === 'voice') return voice();
  return file(media);
}

function picture(media: Media): Player {
  const image = element('img', { className: 'picture', alt: media.filename ?? 'A picture', sizes: `${WIDTH}px` });
  const opens = element('a', { target: '_blank', rel: 'noreferrer' }, image);
  giveRoom(image, media);
  return {
    element: opens,
    preview: (thumbhash) => setPreview(image, thumbhash),
    async show({ media: client }, link, note) {
      opens.href = link.url;
      image.srcset = (await client.srcset(link, WIDTH)) ?? '';
      await image.decode().catch(() => undefined);
      await noteHead(image.currentSrc, 'thumbnail', note);
    },
  };
}

function film(media: Media): Player {
  const video = element('video', { className: 'picture', controls: true, preload: 'metadata', playsInline: true });
  video.setAttribute('aria-label', media.filename ?? 'A film');
  giveRoom(video, media);
  return {
    element: video,
    preview: (thumbhash) => setPreview(video, thumbhash),
    async show({ media: client }, link, note) {
      const poster = (await client.thumbnail(link, WIDTH, devicePixelRatio)) ?? '';
      if (await noteHead(poster, 'poster', note)) video.poster = poster;
      setSource(video, link.url);
      await noteHead(link.url, 'film', note);
    },
  };
}

function voice(): Player {
  const audio = element('audio', { controls: true, preload: 'metadata' });
  audio.setAttribute('aria-label', 'A recording');
  return {
    element: audio,
    preview: () => undefined,
    async show(_session, link, note) {
      setSource(audio, link.url);
      await noteHead(link.url, 'recording', note);
    },
  };
}

function file(media: Media): Player {
  const name = media.filename ?? 'file';
  const link = element('a', { className: 'file', download: name }, name);
  return {
    element: link,
    preview: () => undefined,
    async show(_session, { url }, note) {
      link.href = `${url}&download=${encodeURIComponent(name)}`;
      await noteHead(url, 'file', note);
    },
  };
}

/** A new address of what is being played must not begin it again. */
function setSource(player: HTMLMediaElement, url: string): void {
  if (player.src !== '' && !player.paused) return;
  const { currentTime } = player;
  player.src = url;
  if (currentTime > 0) player.currentTime = currentTime;
}

function giveRoom(shown: HTMLElement, { width, height }: Media): void {
  shown.style.aspectRatio = width === null || height === null ? '4 / 3' : `${width} / ${height}`;
}

function setPreview(shown: HTMLElement, thumbhash: string): void {
  if (shown.style.backgroundImage === '') shown.style.backgroundImage = `url(${thumbhashUrl(thumbhash) ?? ''})`;
}

/** What the edge says about this address, asked past the browser's own cache. */
async function noteHead(url: string, what: string, note: Looks['note']): Promise<boolean> {
  if (url === '') return false;
  const answer = await fetch(url, { method: 'HEAD', cache: 'no-store', headers: { accept: PICTURES } }).catch(
    () => undefined,
  );
  const status = answer?.headers.get('cache-status');
  if (answer !== undefined && status !== null && status !== undefined) note(what, status);
  return answer?.status === 200;
}

/** The edge's name and its first words, such as `hit` or `fwd=uri-miss`, and where it was found. */
function shorten(status: string): string {
  const [name = '', first = '', ...more] = status.split(';').map((part) => part.trim());
  const detail = more.find((part) => part.startsWith('detail='))?.replace('detail=', '');
  return [name, first, detail].filter((part) => part !== undefined && part !== '').join(' · ');
}

function kindOf(mime: string): 'picture' | 'film' | 'voice' | 'file' {
  if (mime.startsWith('image/')) return 'picture';
  if (mime.startsWith('video/')) return 'film';
  return mime.startsWith('audio/') ? 'voice' : 'file';
}

function describe({ size, width, height, duration }: Media): string {
  const units = size < 1_000_000 ? `${Math.ceil(size / 1_000)} kB` : `${(size / 1_000_000).toFixed(1)} MB`;
  const pixels = width === null || height === null ? [] : [`${width} × ${height}`];
  const seconds = duration === null ? [] : [`${Math.round(duration)} s`];
  return [units, ...pixels, ...seconds].join(' · ');
}
