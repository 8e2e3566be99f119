/** Pictures, films and voice messages from the camera and the microphone, as files. */
import { machineClock } from '../../client/clock.js';
import { byId } from '../../live/element.js';

type Kind = 'photo' | 'film' | 'voice';

const WANTED: Readonly<Record<Kind, MediaStreamConstraints>> = {
  photo: { video: { facingMode: 'environment' } },
  film: { video: true, audio: true },
  voice: { audio: true },
};

export function openRecorder(onFile: (file: File) => void, onTrouble: (words: string) => void): void {
  const panel = byId('recorder', HTMLElement);
  const preview = byId('preview', HTMLVideoElement);
  const [shoot, stop, discard] = ['shoot', 'stop', 'discard'].map((id) => byId(id, HTMLButtonElement));
  let end: (() => void) | undefined;
  let accept = (): Promise<void> => Promise.resolve();

  const open = async (kind: Kind, opener: HTMLElement): Promise<void> => {
    end?.();
    onTrouble('');
    const stream = await navigator.mediaDevices.getUserMedia(WANTED[kind]).catch(() => undefined);
    if (stream === undefined) return onTrouble('The browser gives no camera or microphone.');
    preview.hidden = kind === 'voice';
    preview.srcObject = kind === 'voice' ? null : stream;
    if (kind !== 'voice') await preview.play().catch(() => undefined);
    const recording = kind === 'photo' ? undefined : record(stream, kind);
    const wanted = kind === 'photo' ? shoot : stop;
    for (const button of [shoot, stop]) if (button !== undefined) button.hidden = button !== wanted;
    byId('recording', HTMLElement).hidden = kind === 'photo';
    const stopTimer = showTime();

    const close = (): void => {
      stopTimer();
      for (const track of stream.getTracks()) track.stop();
      preview.srcObject = null;
      panel.hidden = true;
      end = undefined;
      opener.focus();
    };
    end = () => {
      recording?.discard();
      close();
    };
    const finish = async (): Promise<void> => {
      const file = recording === undefined ? await takePicture(preview) : await recording.finish();
      close();
      if (file !== undefined) onFile(file);
    };
    accept = finish;
    // Only now can its buttons do what they say.
    panel.hidden = false;
    wanted?.focus();
  };

  for (const kind of ['photo', 'film', 'voice'] as const) {
    const opener = byId(kind, HTMLButtonElement);
    opener.addEventListener('click', () => void open(kind, opener));
  }
  for (const button of [shoot, stop]) button?.addEventListener('click', () => void accept());
  discard?.addEventListener('click', () => end?.());
  panel.addEventListener('keydown', ({ key }) => {
    if (key === 'Escape') end?.();
  });
}

interface Recording {
  finish(): Promise<File>;
  discard(): void;
}

function record(stream: MediaStream, kind: 'film' | 'voice'): Recording {
  const container = kind === 'film' ? 'video' : 'audio';
  const type = [`${container}/mp4`, `${container}/webm`].find((each) => MediaRecorder.isTypeSupported(each)) ?? '';
  const recorder = new MediaRecorder(stream, { mimeType: type });
  const pieces: Blob[] = [];
  recorder.addEventListener('dataavailable', ({ data }) => pieces.push(data));
  const stopped = new Promise((resolve) => recorder.addEventListener('stop', resolve, { once: true }));
  recorder.start();
  return {
    async finish() {
      if (recorder.state !== 'inactive') recorder.stop();
      await stopped;
      // Without the codecs, which are the service's to find out.
      return new File(pieces, `${kind}.${type.split('/')[1] ?? 'webm'}`, { type });
    },
    discard() {
      if (recorder.state !== 'inactive') recorder.stop();
    },
  };
}

async function takePicture(preview: HTMLVideoElement): Promise<File | undefined> {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [preview.videoWidth, preview.videoHeight];
  canvas.getContext('2d')?.drawImage(preview, 0, 0);
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.9));
  return blob === null ? undefined : new File([blob], 'picture.jpeg', { type: 'image/jpeg' });
}

function showTime(): () => void {
  const elapsed = byId('elapsed', HTMLElement);
  const startedAt = machineClock.now();
  let cancel = (): void => undefined;
  const show = (): void => {
    const seconds = Math.round((machineClock.now() - startedAt) / 1_000);
    elapsed.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
    cancel = machineClock.after(1_000, show);
  };
  show();
  return () => cancel();
}
