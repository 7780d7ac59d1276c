/** What a command is: its grammar, its help, and what it does. One file a command. */
import { type Flags, type Operands, parse, type Values } from './args.js';

/** A section of a command's help beside its flags: a heading, and lines as they are to be printed. */
export interface Section {
  readonly heading: string;
  readonly lines: readonly string[];
}

export interface CommandSpec<Fs extends Flags> {
  readonly name: string;
  /** What it does, in a sentence or two. */
  readonly about: string;
  readonly operands: Operands;
  readonly flags: Fs;
  /** As of Grammar. */
  readonly settings?: () => readonly string[];
  /** Command lines to try, each with what it does. */
  readonly examples: readonly (readonly [line: string, about: string])[];
  /** Made only when help is asked for. */
  readonly sections?: () => Promise<readonly Section[]>;
  readonly run: (values: Values<Fs>, operands: readonly string[]) => Promise<void>;
}

/** A command with its flags' types forgotten, for those who list and start commands. */
export interface Command extends Omit<CommandSpec<Flags>, 'run'> {
  /** Reads the words after the command's name and does it. @throws UsageError, and what the command throws */
  readonly execute: (words: readonly string[]) => Promise<void>;
}

/** Flags of every command. --debug is also looked for by the entry, which prints errors. */
export const COMMON = {
  debug: { kind: 'switch', about: 'show errors with their causes and stacks' },
  help: { kind: 'switch', about: 'show this' },
} as const satisfies Flags;

export function defineCommand<const Fs extends Flags>(spec: CommandSpec<Fs>): Command {
  const grammar = { ...spec, flags: { ...spec.flags, ...COMMON } };
  return {
    ...spec,
    flags: grammar.flags,
    execute: async (words) => {
      const { values, operands } = parse(words, grammar);
      await spec.run(values as unknown as Values<Fs>, operands);
    },
  };
}
