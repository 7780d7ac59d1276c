/** The commands there are. A command's own file is loaded only when that command is meant. */
import type { Command } from './command.js';

interface Entry {
  readonly about: string;
  readonly load: () => Promise<Command>;
}

/** By name, in the order of use. */
export const COMMANDS: ReadonlyMap<string, Entry> = new Map(
  Object.entries({
    train: { about: 'train a model from pictures into a new run folder', load: async () => (await import('./train.js')).train },
    sample: { about: 'draw new pictures from a trained model', load: async () => (await import('./sample.js')).sample },
    reconstruct: {
      about: 'encode and decode pictures, and measure what is lost',
      load: async () => (await import('./reconstruct.js')).reconstruct,
    },
    eval: { about: 'measure reconstruction and samples against held-out pictures', load: async () => (await import('./eval.js')).evaluate },
    study: { about: 'show the science: does the latent collapse, and what cures it', load: async () => (await import('./study.js')).study },
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
