/** How a command ends badly: a message on stderr, an exit code, and a stack only for those who ask. */
import { DsdError, InterruptedError, UsageError } from '../core/errors.js';
import { paint, type Terminal } from './terminal.js';
import { plain } from './text.js';

export interface FailOptions {
  /** Show stacks and causes. */
  readonly debug: boolean;
  /** The command that was run, to point to its help; absent before it is known. */
  readonly command?: string;
  /** What to type to start this program; 'dsd' if absent. */
  readonly program?: string;
  readonly stream?: Terminal;
}

/** Prints an error and returns what the process should exit with. */
export function fail(error: unknown, { debug, command, program = 'dsd', stream = process.stderr }: FailOptions): number {
  const { red } = paint(stream);
  const known = error instanceof DsdError ? error : outOfMemory(error);
  const lines: string[] = [];
  if (known instanceof InterruptedError) lines.push(...shown(known));
  else if (known) lines.push(`${red('error:')} ${shown(known).join('\n       ')}`);
  else
    lines.push(
      `${red('error:')} ${describe(error)}`,
      'This is a bug in dsd. Please report it, with what the same command prints when --debug is added.',
    );
  if (known instanceof UsageError) lines.push(`See: ${program} ${command ? `${command} ` : ''}--help`);
  if (debug) lines.push(...causes(error));
  stream.write(`${lines.join('\n')}\n`);
  return known?.exitCode ?? 1;
}

const shown = ({ message }: Error): string[] => message.split('\n').map(plain);

/** libtorch's and V8's ways of saying that memory ran out, where no one below knew better advice. */
function outOfMemory(error: unknown): DsdError | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = 'code' in error ? error.code : undefined;
  if (code !== 'ERR_TORCH_MEMORY' && code !== 'ERR_MEMORY_ALLOCATION_FAILED' && !/array buffer allocation failed/i.test(error.message))
    return undefined;
  // What libtorch adds (its allocator's file and line, every argument) is for --debug.
  const what = /out of memory in [\w:.]+/.exec(error.message)?.[0] ?? 'out of memory';
  return new MemoryError(`${what.replace(/:$/, '')}: use a smaller batch or model, or --dtype bfloat16`, { cause: error });
}

class MemoryError extends DsdError {
  override readonly exitCode = 1;
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : `something was thrown that is no error: ${String(error)}`;
}

/** Stacks of an error and of what caused it, from the outermost to the first. */
function causes(error: unknown): string[] {
  const seen = new Set<unknown>();
  const lines: string[] = [];
  for (let at: unknown = error; at !== undefined && at !== null && !seen.has(at); at = at instanceof Error ? at.cause : undefined) {
    lines.push(`${lines.length === 0 ? '' : 'caused by '}${at instanceof Error ? (at.stack ?? describe(at)) : String(at)}`);
    seen.add(at);
  }
  return lines;
}

/**
 * Watches what no one awaits, and streams whose reader has gone: `dsd info RUN | head -1` ends quietly, and a run whose stderr nobody reads goes on.
 * @param give prints an error and ends the process
 */
export function watchProcess(give: (error: unknown) => never): void {
  process.on('uncaughtException', give);
  process.on('unhandledRejection', give);
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    give(new StdoutError(error));
  });
  process.stderr.on('error', () => {});
}

class StdoutError extends DsdError {
  override readonly exitCode = 1;
  constructor(cause: NodeJS.ErrnoException) {
    super(`cannot write the result to standard output: ${cause.code === 'ENOSPC' ? 'the disk is full' : cause.message}`, { cause });
  }
}
