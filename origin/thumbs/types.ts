/**
 * Which media types get thumbnails, and by which route: a closed list, so that
 * no decoder ever gets anything else.
 */

/** The container readers of ffmpeg that may be used. Each is named to ffmpeg, which never guesses. */
export type Demuxer =
  | 'mov'
  | 'matroska'
  | 'ogg'
  | 'avi'
  | 'mpeg'
  | 'mpegts'
  | 'mp3'
  | 'aac'
  | 'flac'
  | 'wav'
  | 'amr'
  | 'caf';

export type Route =
  | { readonly kind: 'picture' }
  /** A picture that only an external tool can decode. */
  | { readonly kind: 'heif' }
  | { readonly kind: 'ffmpeg'; readonly demuxer: Demuxer }
  | { readonly kind: 'none' };

/** Which external tools are installed. `ffmpeg` stands for ffmpeg and ffprobe together. */
export interface InstalledTools {
  readonly ffmpeg: boolean;
  readonly heif: boolean;
}

const PICTURES = ['image/jpeg', 'image/png', 'image/apng', 'image/gif', 'image/webp', 'image/avif'];
const HEIF = ['image/heic', 'image/heif', 'image/heic-sequence', 'image/heif-sequence'];
const DEMUXERS: Readonly<Record<string, Demuxer>> = {
  'video/mp4': 'mov',
  'video/quicktime': 'mov',
  'video/x-m4v': 'mov',
  'video/3gpp': 'mov',
  'video/3gpp2': 'mov',
  'video/webm': 'matroska',
  'video/matroska': 'matroska',
  'video/x-matroska': 'matroska',
  'video/ogg': 'ogg',
  'video/vnd.avi': 'avi',
  'video/x-msvideo': 'avi',
  'video/mpeg': 'mpeg',
  'video/mp2t': 'mpegts',
  'audio/mp4': 'mov',
  'audio/x-m4a': 'mov',
  'audio/3gpp': 'mov',
  'audio/3gpp2': 'mov',
  'audio/webm': 'matroska',
  'audio/matroska': 'matroska',
  'audio/ogg': 'ogg',
  'audio/opus': 'ogg',
  'audio/mpeg': 'mp3',
  'audio/aac': 'aac',
  'audio/flac': 'flac',
  'audio/x-flac': 'flac',
  'audio/wav': 'wav',
  'audio/x-wav': 'wav',
  'audio/amr': 'amr',
  'audio/x-caf': 'caf',
};

export function routeOf(mime: string, tools: InstalledTools): Route {
  const type = (mime.split(';', 1)[0] ?? '').trim().toLowerCase();
  if (PICTURES.includes(type)) return { kind: 'picture' };
  if (HEIF.includes(type)) return tools.heif ? { kind: 'heif' } : { kind: 'none' };
  const demuxer = Object.hasOwn(DEMUXERS, type) ? DEMUXERS[type] : undefined;
  return demuxer !== undefined && tools.ffmpeg ? { kind: 'ffmpeg', demuxer } : { kind: 'none' };
}

export function typesOf(tools: InstalledTools): readonly string[] {
  return [...PICTURES, ...(tools.heif ? HEIF : []), ...(tools.ffmpeg ? Object.keys(DEMUXERS) : [])];
}
