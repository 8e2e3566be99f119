/**
 * Where the log of a process goes: standard output, or a file. A worker process
 * always writes to its standard output, which its parent reads: so one process
 * writes the file and rotates it.
 */
import cluster from 'node:cluster';
import { systemClock } from '../clock.js';
import { errorFields, type Log, type LogConfig, type LogSink } from '../log.js';
import { type LogFile, openLogFile } from './file.js';
import { createLines } from './lines.js';
import { limitStandardOutput, lostLine, pauseThread, standardOutput } from './standard-output.js';

export interface LogOutput extends LogSink {
  /** How many lines were lost since the start. */
  readonly lost: number;
  /** The file was moved away, and is to be opened anew. */
  reopen(): void;
  /** Resolves when what was written before has left. */
  flush(): Promise<void>;
  /** Where trouble with the file is logged. */
  reportTo(log: Log): void;
}

export type OutputConfig = Pick<LogConfig, 'format' | 'to' | 'file' | 'waitingMaxBytes'>;

/** `process` is its name. Throws if the file cannot be opened. */
export function openLogOutput(name: string, config: OutputConfig): LogOutput {
  limitStandardOutput(config.waitingMaxBytes);
  const standard = standardOutput();
  if (config.to === 'stdout' || cluster.isWorker) {
    return {
      write: (line) => standard.write(line),
      gather: (line) => standard.gather(line),
      get lost() {
        return standard.lost;
      },
      reopen: () => undefined,
      flush: () => standard.flush(),
      reportTo: () => undefined,
    };
  }
  return outputToFile(name, config);
}

function outputToFile(name: string, config: OutputConfig): LogOutput {
  let log: Log | undefined;
  const path = config.file.path.replaceAll('{process}', name);
  const file: LogFile = openLogFile({ ...config.file, path }, (thrown) =>
    log?.warn({ path, ...errorFields(thrown) }, 'the file of the log could not be opened anew; the one before stays'),
  );
  const standard = standardOutput();
  // A file in the combined format is for programs that know that format alone.
  const requestsAlone = config.format === 'combined';
  const reportElsewhere = (count: number): string => {
    standard.write(lostLine(count));
    return '';
  };
  const lines = createLines({
    output: file,
    clock: systemClock,
    waitingMaxBytes: () => config.waitingMaxBytes,
    lost: requestsAlone ? reportElsewhere : lostLine,
    pause: pauseThread,
  });
  // Unless the process is killed.
  process.once('exit', () => lines.end());
  const others = requestsAlone ? standard : lines;
  return {
    write: (line) => others.write(line),
    gather: (line) => lines.gather(line),
    get lost() {
      return lines.lost + standard.lost;
    },
    reopen() {
      file.reopen();
      log?.info({ path }, 'the file of the log is opened anew');
    },
    async flush() {
      await Promise.all([lines.flush(), standard.flush()]);
    },
    reportTo(given) {
      log = given;
    },
  };
}
