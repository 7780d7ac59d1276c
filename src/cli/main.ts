#!/usr/bin/env node
/**
 * The `dsd` command. It loads a command's own file only when that command is meant, so help needs neither the engine, nor sharp, nor zod.
 */
import { nearest, UsageError } from '../core/errors.js';
import { COMMANDS } from './commands.js';
import { fail, watchProcess } from './fail.js';
import { commandHelp, programHelp } from './help.js';
import { programName, version } from './self.js';

async function main(words: readonly string[]): Promise<void> {
  const [first, ...rest] = words;
  const table = [...COMMANDS].map(([name, { about }]) => [name, about] as const);
  if (first === undefined) {
    process.stderr.write(programHelp(table, programName()));
    process.exitCode = 2;
    return;
  }
  if (first === '--help' || first === '-h' || (first === 'help' && rest.length === 0)) return print(programHelp(table, programName()));
  if (first === '--version') return print(`${version()}\n`);
  const [name, args] = first === 'help' ? [rest[0] as string, ['--help']] : [first, rest];
  const entry = COMMANDS.get(name);
  if (!entry) {
    const guess = nearest(name, COMMANDS.keys());
    const what = name.startsWith('-') ? `there is no flag '${name}' before a command` : `there is no command '${name}'`;
    throw new UsageError(`${what}${guess ? `; did you mean '${guess}'?` : `. Commands: ${[...COMMANDS.keys()].join(', ')}`}`);
  }
  const command = await entry.load();
  if (wantsHelp(args)) return print(await commandHelp(command, process.stdout.columns, programName()));
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
const context = {
  debug: words.includes('--debug'),
  program: programName(),
  ...(COMMANDS.has(words[0] ?? '') ? { command: words[0] as string } : {}),
};
/** Ends at once: after an error there may be threads at work that would keep the process alive. */
const give = (error: unknown): never => process.exit(fail(error, context));

watchProcess(give);
main(words).catch(give);
