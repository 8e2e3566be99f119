/**
 * What the recorders of browsers and phones write, as far as it shows what the file
 * is: containers with the tracks that are asked for, and frames of sound without a
 * container. The frames hold no sound.
 */

export type Track = 'sound' | 'picture' | 'text';

function join(...parts: readonly (Buffer | string)[]): Buffer {
  return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part)));
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

// ISO base media files.

export function isoBox(type: string, ...content: readonly (Buffer | string)[]): Buffer {
  const data = join(...content);
  return join(u32(8 + data.length), type, data);
}

/** A box whose size has 64 bits. */
export function longIsoBox(type: string, ...content: readonly (Buffer | string)[]): Buffer {
  const data = join(...content);
  return join(u32(1), type, u32(0), u32(16 + data.length), data);
}

const HANDLERS: Readonly<Record<Track, string>> = { sound: 'soun', picture: 'vide', text: 'text' };

export function isoMovie(tracks: readonly Track[]): Buffer {
  const boxes = tracks.map((track) =>
    isoBox(
      'trak',
      isoBox('tkhd', Buffer.alloc(84)),
      isoBox(
        'mdia',
        isoBox('mdhd', Buffer.alloc(24)),
        isoBox('hdlr', Buffer.alloc(8), HANDLERS[track], Buffer.alloc(13)),
      ),
    ),
  );
  return isoBox('moov', isoBox('mvhd', Buffer.alloc(100)), ...boxes);
}

const isoType = (brand: string): Buffer => isoBox('ftyp', brand, u32(0), brand, 'isom');

/** As phones write it: the list of tracks follows the data. */
export function phoneIso(brand: string, tracks: readonly Track[], dataBytes = 1_000): Buffer {
  return join(isoType(brand), isoBox('mdat', Buffer.alloc(dataBytes, 7)), isoMovie(tracks));
}

/** As Safari writes it: fragments follow the list of tracks. */
export function safariMp4(tracks: readonly Track[]): Buffer {
  const fragment = join(isoBox('moof', isoBox('mfhd', Buffer.alloc(8))), isoBox('mdat', Buffer.alloc(500, 7)));
  return join(isoType('iso5'), isoMovie(tracks), fragment, fragment);
}

// WebM and Matroska.

/** An element whose size is unknown if no content is given with it. */
function element(id: string, ...content: readonly (Buffer | string)[]): Buffer {
  const data = join(...content);
  const size = u32(data.length);
  size[0] = 0x10;
  return join(Buffer.from(id, 'hex'), size, data);
}

function unsized(id: string, ...content: readonly Buffer[]): Buffer {
  return join(Buffer.from(id, 'hex'), Buffer.from('01ffffffffffffff', 'hex'), ...content);
}

const TRACK_TYPES: Readonly<Record<Track, number>> = { picture: 1, sound: 2, text: 0x11 };

/** As Chrome writes it: neither the segment nor its clusters have a size, and no duration is stated. */
export function chromeWebm(tracks: readonly Track[], docType = 'webm'): Buffer {
  const entries = tracks.map((track) =>
    element('ae', element('d7', '\x01'), element('83', Buffer.from([TRACK_TYPES[track]]))),
  );
  return join(
    element('1a45dfa3', element('4286', '\x01'), element('4282', docType)),
    unsized(
      '18538067',
      element('ec', Buffer.alloc(40)),
      element('1549a966', element('2ad7b1', Buffer.from('0f4240', 'hex'))),
      element('1654ae6b', ...entries),
      unsized('1f43b675', element('e7', '\0'), element('a3', Buffer.alloc(200, 7))),
    ),
  );
}

// Ogg.

const OGG_CODECS: Readonly<Record<Track, string>> = {
  sound: 'OpusHead\x01',
  picture: '\x80theora\x03',
  text: '\x80kate\0\0\0',
};

function oggPage(flags: number, serial: number, packet: Buffer | string): Buffer {
  const data = join(packet);
  const rest = Buffer.alloc(22);
  rest[1] = flags;
  rest.writeUInt32LE(serial, 10);
  return join('OggS', rest, Buffer.from([1, data.length]), data);
}

/** As Firefox writes it; with `skeleton`, a stream that describes the others comes first. */
export function firefoxOgg(tracks: readonly Track[], skeleton = false): Buffer {
  const codecs = [...(skeleton ? ['fishead\0'] : []), ...tracks.map((track) => OGG_CODECS[track])];
  const first = codecs.map((codec, serial) => oggPage(2, serial, join(codec, Buffer.alloc(20))));
  return join(...first, ...codecs.map((_, serial) => oggPage(0, serial, Buffer.alloc(200, 7))));
}

// Frames without a container.

export function mp3Frames(count: number): Buffer {
  // MPEG-1 layer III, 128 kbit/s, 44.1 kHz.
  const frame = join(Buffer.from('fffb9064', 'hex'), Buffer.alloc(413, 0x55));
  return join(...Array.from({ length: count }, () => frame));
}

export function adtsFrames(count: number): Buffer {
  // AAC LC, 44.1 kHz, stereo, 107 bytes a frame.
  const frame = join(Buffer.from('fff150800d7ffc', 'hex'), Buffer.alloc(100, 0x21));
  return join(...Array.from({ length: count }, () => frame));
}

export function id3Tag(contentBytes: number): Buffer {
  const size = [21, 14, 7, 0].map((shift) => (contentBytes >>> shift) & 0x7f);
  return join('ID3\x04\0\0', Buffer.from(size), Buffer.alloc(contentBytes));
}

/** Frames of 12.2 kbit/s, or of 23.85 kbit/s in the wide band. */
export function amrFrames(count: number, band: 'narrow' | 'wide' = 'narrow'): Buffer {
  const frame = band === 'narrow' ? join('\x3c', Buffer.alloc(31)) : join('\x44', Buffer.alloc(60));
  return join(band === 'narrow' ? '#!AMR\n' : '#!AMR-WB\n', ...Array.from({ length: count }, () => frame));
}

export function caf(): Buffer {
  const description = Buffer.alloc(32);
  description.writeDoubleBE(8_000);
  description.write('lpcm', 8, 'latin1');
  // Packets of two bytes, one frame each, one channel, sixteen bits.
  for (const [index, value] of [0, 2, 1, 1, 16].entries()) description.writeUInt32BE(value, 12 + index * 4);
  const chunk = (type: string, data: Buffer): Buffer => join(type, u32(0), u32(data.length), data);
  return join('caff\0\x01\0\0', chunk('desc', description), chunk('data', Buffer.alloc(4 + 8_000)));
}
