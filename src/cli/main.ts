#!/usr/bin/env node
/**
 * The entry of the `dsd` command. It loads a command's own file only when that command is meant, so help needs neither the engine, nor sharp,
 * nor zod.
 */
import { nearest, UsageError } from '../core/errors.js';
import type { Command } from './command.js';
import { fail, watchProcess } from './fail.js';
import { commandHelp, programHelp } from './help.js';
import { version } from './self.js';

interface Entry {
  readonly about: string;
  readonly load: () => Promise<Command>;
}

const COMMANDS: ReadonlyMap<string, Entry> = new Map(
  Object.entries({
    train: { about: 'train a model from pictures into a new run folder', load: async () => (await import('./train.js')).train },
    sample: { about: 'draw new pictures from a trained model', load: async () => (await import('./sample.js')).sample },
    reconstruct: {
      about: 'encode and decode pictures, and measure what is lost',
      load: async () => (await import('./reconstruct.js')).reconstruct,
    },
    eval: { about: 'measure reconstruction and samples against held-out pictures', load: async () => (await import('./eval.js')).evaluate },
    data: { about: 'look at a data set: counts by class and a contact sheet', load: async () => (await import('./data.js')).data },
    info: { about: 'what a weights file or a preset is: sizes, parameters, settings', load: async () => (await import('./info.js')).info },
    checkpoint: {
      about: 'list, verify or remove the checkpoints of a run',
      load: async () => (await import('./checkpoint.js')).checkpoint,
    },
    bench: { about: 'measure the engine and a training step against PyTorch', load: async () => (await import('./bench.js')).bench },
    doctor: { about: 'check what is installed and how fast it is here', load: async () => (await import('./doctor.js')).doctor },
  } satisfies Record<string, Entry>),
);

async function main(words: readonly string[]): Promise<void> {
  const [first, ...rest] = words;
  const table = [...COMMANDS].map(([name, { about }]) => [name, about] as const);
  if (first === undefined) throw new UsageError(`dsd wants a command: ${[...COMMANDS.keys()].join(', ')}`);
  if (first === '--help' || first === '-h' || (first === 'help' && rest.length === 0)) return print(programHelp(table));
  if (first === '--version') return print(`${version()}\n`);
  const [name, args] = first === 'help' ? [rest[0] as string, ['--help']] : [first, rest];
  const entry = COMMANDS.get(name);
  if (!entry) {
    const guess = nearest(name, COMMANDS.keys());
    const what = name.startsWith('-') ? `there is no flag '${name}' before a command` : `there is no command '${name}'`;
    throw new UsageError(`${what}${guess ? `; did you mean '${guess}'?` : `. Commands: ${[...COMMANDS.keys()].join(', ')}`}`);
  }
  const command = await entry.load();
  if (wantsHelp(args)) return print(await commandHelp(command, process.stdout.columns));
  await command.execute(args);
}

/** --help and -h hold wherever they stand, but after `--`. */
function wantsHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).some((word) => word === '--help' || word === '-h');
}

function print(text: string): void {
  process.stdout.write(text);
}

const words = process.argv.slice(2);
const context = { debug: words.includes('--debug'), ...(COMMANDS.has(words[0] ?? '') ? { command: words[0] as string } : {}) };
/** Ends at once: after an error there may be threads at work that would keep the process alive. */
const give = (error: unknown): never => process.exit(fail(error, context));

watchProcess(give);
main(words).catch(give);
