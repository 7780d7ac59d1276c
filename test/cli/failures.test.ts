/** Bad input and bad luck of every kind that reaches the command line: the exit code, and a message that says what to do. No stack. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { encodeSafetensors, readSafetensors } from '../../src/io/safetensors.js';
import { dsd, type Ended, MAIN, makePictures, type StartOptions, start, TOY, workplace } from './harness.js';

const { folder, remove } = workplace();
const at = (...parts: string[]): string => join(folder, ...parts);
const run = (words: readonly string[], options: StartOptions = {}): Promise<Ended> => dsd(words, { cwd: folder, ...options });

before(async () => {
  await makePictures(at('pictures'));
  const { code, stderr } = await run([...TOY, '--data', 'pictures', '--out', 'run']);
  assert.equal(code, 0, stderr);
});
after(remove);

/** Runs two at a time: each takes a second, most of it in loading. */
async function refuse(code: number, cases: readonly (readonly [words: readonly string[], message: RegExp])[]): Promise<void> {
  const open = [...cases];
  const work = async (): Promise<void> => {
    for (let next = open.shift(); next; next = open.shift()) {
      const [words, message] = next;
      const ended = await run(words);
      assert.match(ended.stderr, message, words.join(' '));
      assert.equal(ended.code, code, `${words.join(' ')}: ${ended.stderr}`);
      assert.equal(ended.stdout, '', words.join(' '));
      assert.doesNotMatch(ended.stderr, /\n +at |bug in dsd/, words.join(' '));
    }
  };
  await Promise.all([work(), work()]);
}

const train = (...words: string[]): string[] => ['train', '--preset', 'toy', '--data', 'pictures', ...words];

test('wrong usage exits 2 and says what was meant', async () => {
  mkdirSync(at('used'));
  writeFileSync(at('used', 'file'), '');
  writeFileSync(at('bad.json'), '{"train": ');
  for (const [name, first] of [
    ['a', 0],
    ['b', 2],
  ] as const) {
    mkdirSync(at('few', name), { recursive: true });
    for (const i of [first, first + 1]) cpSync(at('pictures', 'train', 'dark', `${i}.png`), at('few', name, `${i}.png`));
  }
  writeFileSync(at('unknown.json'), '{"train": {"bach": 3}}');
  await refuse(2, [
    [['trian'], /no command 'trian'; did you mean 'train'\?/],
    [['--presett'], /no flag '--presett' before a command/],
    [['train'], /wants settings to begin from: --preset demo\|fashion-mnist/],
    [['train', '--preset', 'demoo'], /no preset 'demoo'; did you mean 'demo'\?/],
    [['train', '--preset', 'imagenet-256-S'], /preset 'imagenet-256-S' comes without pictures: .*: --data FOLDER/],
    [train('--set', 'train.bach=3'), /no setting 'train\.bach'; did you mean 'train\.batch'\?/],
    [train('--set', 'train.batch=many'), /'train\.batch' must be a number; found "many"/],
    [train('--set', '__proto__.x=1'), /no setting '__proto__'/],
    [train('--set', 'preset=demo'), /the preset is chosen by --preset demo, not by --set/],
    [train('--set', 'model.depth=1e9'), /'model\.depth' must be at most 1000; found 1000000000/],
    [train('--train.batch=3'), /--set train\.batch=3/],
    [train('--batch', '4'), /no flag '--batch'; a setting is given by --set: --set train\.batch=4/],
    [train('--set', 'objective.paradigm=nave'), /^error: there is no paradigm 'nave'; did you mean 'naive'\? .*\nSee: /],
    [['train', '--preset', 'toy', '--set', 'data.source=gone'], /there is no folder 'gone', where these settings have .*--data FOLDER/],
    [train('--config', 'bad.json'), /bad\.json is not JSON/],
    [train('--config', 'unknown.json'), /no setting 'train\.bach'/],
    [train('--config', 'absent.json'), /there is no such file/],
    [train('--set', 'data.image=18'), /18 px cannot be cut into patches of 4 px/],
    [train('--out', 'used'), /'used' exists and is not empty; a run is never written over/],
    [train('--device', 'gpu'), /--device is cpu, cuda or cuda:N; found 'gpu'/],
    [train('--set', 'objective.paradigm=latent-diffusion'), /needs the weights of the autoencoder/],
    [['train', '--preset', 'toy', '--data', 'nowhere'], /unknown data set "nowhere"/],
    [['sample', 'run', '--class', 'drak'], /no class 'drak'; did you mean 'dark'\?/],
    [['sample', 'run', '--class', '2'], /no class '2'\. Classes are 0 to 1, or none for no class .*; by name: dark, light square/],
    [['sample', 'nowhere'], /no file or run folder 'nowhere'/],
    [['sample', 'pictures'], /folder 'pictures' has no model\.safetensors/],
    [['sample', 'run', '--out', 'x.jpg'], /NAME\.png, NAME\.npz, or a folder/],
    [['sample', 'run', '--out', 'nowhere/x.png'], /no folder 'nowhere'/],
    [['sample', 'run', '--interval', '1,0.1'], /--interval wants two times, low then high/],
    [['reconstruct', 'run', 'pictures/train/dark/0.png', '--count', '1'], /--count chooses from a data set, and here pictures are named/],
    [['eval', 'run', '--count', '1e15'], /--count wants a whole number from 4 to 1000000/],
    [['eval', 'run', '--features', 'classifier', '--data', 'few'], /more than 3 pictures in each part, and few, training part has 3/],
    [['eval', 'run', '--features', 'inception'], /--features wants some of .*; found 'inception'/],
    [['eval', 'run', '--features', 'classifier,classifier'], /--features names classifier twice/],
    [['eval', 'run', '--features', 'inception-2015'], /FID is defined by the Inception of 2015.*--inception PATH/],
    [['eval', 'run', '--write-reference', 'run'], /--write-reference wants FILE\.npz, found 'run'/],
    [['eval', 'run', '--features', 'classifier', '--write-reference', 'x.npz'], /a classifier is trained anew each time/],
    [['eval', 'pictures/val/dark'], /holds pictures: name what they are to be compared with by --data or --reference/],
    [['eval', 'pictures/val/dark', '--data', 'pictures', '--steps', '2'], /--steps is for drawing samples/],
    [['eval', 'pictures/val/dark', '--data', 'pictures', '--count', '99'], /99 pictures were asked for, and .*dark has 6/],
    [['eval', 'run', '--sweep', 'guidence=1,2'], /found 'guidence=1,2': did you mean 'guidance'/],
    [['eval', 'run', '--sweep', 'steps=1,2', '--steps', '3'], /steps is given by --steps and by --sweep/],
    [['eval', 'pictures/val/dark', '--data', 'pictures', '--sweep', 'steps=1'], /--sweep is for drawing samples/],
    [['eval', 'nowhere'], /no file or run folder 'nowhere'/],
    [['reconstruct', 'run', 'nowhere.png'], /no picture, folder or data set 'nowhere\.png'/],
    [['reconstruct', 'run', 'fashion-mnist'], /fashion-mnist are grey, and this model was made for colour/],
    [['info'], /a model or a preset/],
    [['info', 'demo'], /there is no file or run folder 'demo'; a preset is shown by --preset demo$/m],
    [['info', 'demos'], /there is no file or run folder 'demos'$/m],
    [['bench', 'opps'], /dsd bench wants ops, step, all, save, train, sample or data; found 'opps'/],
    [['data', 'openmojis'], /Did you mean openmoji/],
  ]);
});

test('no command: the help of the program, on stderr', async () => {
  const { code, stdout, stderr } = await run([]);
  assert.deepEqual([code, stdout, stderr], [2, '', (await run(['--help'])).stdout]);
});

test('data and pictures that cannot be used exit 1, with the path', async () => {
  mkdirSync(at('empty'));
  mkdirSync(at('half', 'full'), { recursive: true });
  mkdirSync(at('half', 'void'));
  cpSync(at('pictures', 'train', 'dark', '0.png'), at('half', 'full', '0.png'));
  cpSync(at('pictures', 'train', 'dark', '1.png'), at('half', 'full', '1.png'));
  writeFileSync(at('text.jpg'), 'hello');
  writeFileSync(at('zero.png'), '');
  writeFileSync(at('cut.png'), readFileSync(at('pictures', 'train', 'dark', '0.png')).subarray(0, 120));
  cpSync(at('pictures', 'train'), at('spoilt'), { recursive: true });
  for (let i = 0; i < 24; i++) writeFileSync(at('spoilt', 'dark', `${i}.png`), 'hello');
  for (const part of ['train', 'val']) cpSync(at('pictures', part), at('held', part), { recursive: true });
  writeFileSync(at('held', 'val', 'dark', '25.png'), 'hello');
  await refuse(1, [
    [['train', '--preset', 'toy', '--data', 'empty'], /empty has no pictures and no sub-folders/],
    [['data', 'half'], /no picture .* in class folder "void"/],
    [
      ['train', '--preset', 'toy', '--data', 'spoilt'],
      /cannot use picture spoilt\/dark\/\d+\.png: it is not a JPEG.*\. Mend the file .*: --set data\.broken=skip$/m,
    ],
    [['data', 'spoilt'], /cannot use picture spoilt\/dark\/\d+\.png: it is not a JPEG.*\. Mend the file .*: --broken skip\./],
    // Here no picture can be left out, so nothing is said of that.
    [['reconstruct', 'run', 'text.jpg'], /text\.jpg: it is not a JPEG, PNG, WebP or GIF picture; it begins with "hello"\n$/],
    [['reconstruct', 'run', 'zero.png'], /zero\.png: the file is empty \(0 bytes\)\n$/],
    [['reconstruct', 'run', 'cut.png'], /cut\.png: the file is cut off or damaged \(.*\)\n$/],
    [['reconstruct', 'run', 'held'], /held\/val\/dark\/25\.png: it is not a JPEG.*\. Mend the file or remove it\n$/],
    [
      ['eval', 'run', '--features', 'classifier', '--classifier-steps', '1', '--data', 'held'],
      /held\/val\/dark\/25\.png: it is not a JPEG.*\. Mend the file or remove it\n$/,
    ],
  ]);
});

test('data --check names every picture that is broken: twenty for people, all for programs; exit 1 unless they are skipped', async () => {
  for (const part of ['train', 'val']) cpSync(at('pictures', part), at('checked', part), { recursive: true });
  const sound = await run(['data', 'checked', '--check', '--out', 'sound.png']);
  assert.deepEqual([sound.code, existsSync(at('sound.png'))], [0, true]);
  assert.match(sound.stdout, /^decoded all 60 pictures: none is broken$/m);

  const whole = readFileSync(at('pictures', 'train', 'dark', '0.png'));
  const cut = (path: string): void => writeFileSync(at('checked', path), whole.subarray(0, 120));
  cut('val/dark/29.png'); // the sheet has three held-out pictures of a class, and not this one
  cut('train/dark/3.png');
  const { code, stdout, stderr } = await run(['data', 'checked', '--check', '--out', 'none.png']);
  assert.deepEqual([code, existsSync(at('none.png'))], [1, false]);
  assert.match(stdout, /^ +all +48 +12$/m);
  assert.match(
    stdout,
    /^decoded all 60 pictures: 2 broken\n {2}checked\/train\/dark\/3\.png: .* cut off .*\n {2}checked\/val\/dark\/29\.png: /m,
  );
  assert.match(
    stderr,
    /^error: 2 of 60 pictures cannot be used\. Mend or remove them, or have training skip them: --set data\.broken=skip$/m,
  );
  const skipped = await run(['data', 'checked', '--check', '--broken', 'skip', '--out', 'skipped.png']);
  assert.deepEqual([skipped.code, existsSync(at('skipped.png'))], [0, true], skipped.stderr);
  assert.match(skipped.stdout, /: 2 broken\n {2}checked\/train\/dark\/3\.png: /);

  for (let i = 0; i < 22; i++) cut(`train/dark/${i}.png`);
  const many = await run(['data', 'checked', '--check']);
  assert.match(many.stdout, /: 23 broken\n( {2}checked\/train\/dark\/\d+\.png: .*\n){20} {2}and 3 more; --json lists all\n$/);
  assert.match(many.stderr, /too many for --set data\.broken=skip$/m);
  const all = await run(['data', 'checked', '--check', '--broken', 'skip', '--json']);
  assert.equal(all.code, 1);
  assert.match(all.stderr, /at most 10 are skipped/);
  const { checked, broken, contactSheet } = JSON.parse(all.stdout) as { checked: number; broken: object[]; contactSheet: unknown };
  assert.deepEqual([checked, broken.length, contactSheet], [60, 23, null]);
});

test('broken pictures that are skipped are named, in training as in reconstruction', async () => {
  for (const part of ['train', 'val']) cpSync(at('pictures', part), at('mixed', part), { recursive: true });
  writeFileSync(at('mixed', 'train', 'dark', '3.png'), 'hello');
  writeFileSync(at('mixed', 'val', 'dark', '25.png'), 'hello');
  const trained = await run([...TOY, '--data', 'mixed', '--out', 'mended', '--set', 'data.broken=skip']);
  assert.equal(trained.code, 0, trained.stderr);
  assert.match(trained.stderr, /^skipped mixed\/train\/dark\/3\.png: it is not a JPEG.*; mixed\/train\/dark\/4\.png stands in$/m);
  const rebuilt = await run(['reconstruct', 'mended', '--out', 'mended.png']);
  assert.equal(rebuilt.code, 0, rebuilt.stderr);
  assert.match(rebuilt.stderr, /^skipped mixed\/val\/dark\/25\.png: /m);
});

test('weights that are cut off, no weights at all, or another network exit 1, with what was found', async () => {
  const whole = readFileSync(at('run', 'model.safetensors'));
  writeFileSync(at('cut-header.safetensors'), whole.subarray(0, 900));
  writeFileSync(at('cut.safetensors'), whole.subarray(0, whole.length - 4));
  writeFileSync(at('text.safetensors'), 'These are not weights, whatever the name says.');
  const { tensors, metadata } = readSafetensors(at('run', 'model.safetensors'));
  const write = (name: string, some: typeof tensors, about: typeof metadata): void =>
    writeFileSync(at(name), Buffer.concat(encodeSafetensors(some, about)));
  write('foreign.safetensors', tensors, new Map());
  const config = JSON.parse(metadata.get('config') as string) as { model: { hidden: number } };
  config.model.hidden = 96;
  write('wider.safetensors', tensors, new Map([...metadata, ['config', JSON.stringify(config)]]));
  const hostile = { ...config, model: { ...config.model, depth: 1e9 } };
  write('deep.safetensors', tensors, new Map([...metadata, ['config', JSON.stringify(hostile)]]));
  write('uncounted.safetensors', tensors, new Map([...metadata, ['images', '"many"']]));
  write('painted.safetensors', tensors, new Map([...metadata, ['classes', JSON.stringify(['dark\x1b[2J', 'light\nsquare'])]]));
  write('fewer.safetensors', new Map([...tensors].filter(([name]) => name !== 'trunk.role.weight')), metadata);
  await refuse(1, [
    [['info', 'cut-header.safetensors'], /cut-header\.safetensors is not a valid safetensors file/],
    [['sample', 'cut.safetensors'], /cut\.safetensors is not a valid safetensors file/],
    [['reconstruct', 'text.safetensors'], /text\.safetensors is not a valid safetensors file/],
    [['info', 'foreign.safetensors'], /was not written by dsd/],
    [['sample', 'wider.safetensors'], /tensor 'trunk\.blocks\.0\.gate_up\.weight' is F32 \[128,32\], wanted F32 \[192,32\]/],
    [
      ['info', 'deep.safetensors'],
      /configuration is not one that this version of dsd knows:\n +setting 'model\.depth' must be at most 1000/,
    ],
    [['info', 'uncounted.safetensors'], /its metadata 'images' is no count: "many"/],
    [['sample', 'fewer.safetensors'], /has no tensor 'trunk\.role\.weight'/],
  ]);
  // Names are data: none of them moves the cursor, or breaks a line.
  const painted = await run(['info', 'painted.safetensors']);
  assert.match(painted.stdout, /^classes +2: dark\ufffd\[2J, light\ufffdsquare$/m);
  assert.match((await run(['sample', 'painted.safetensors', '--class', '\x1b[31m'])).stderr, /no class '\ufffd\[31m'/);
});

test('what a model has not learned is not asked of it', async () => {
  const made = await run([...TOY, '--data', 'pictures', '--out', 'blind', '--set', 'objective.paradigm=self-distillation', '--quiet']);
  assert.equal(made.code, 0, made.stderr);
  assert.doesNotMatch(made.stdout, /PSNR|sample/);
  const coded = await run([...TOY, '--data', 'pictures', '--out', 'coder', '--set', 'objective.paradigm=autoencoder', '--quiet']);
  assert.equal(coded.code, 0, coded.stderr);
  await refuse(2, [
    [['sample', 'blind'], /has no decoder, so it makes no pictures: it was trained by paradigm 'self-distillation'/],
    [['reconstruct', 'blind'], /has no decoder/],
    [['eval', 'coder'], /cannot draw new pictures/],
    [['eval', 'blind', '--guidance', '2'], /--guidance is for pictures, and 'blind' has no decoder.*what its encoder knows/],
    [['eval', 'blind', '--reference', 'x.npz'], /--reference is for pictures/],
    [['sample', 'coder'], /cannot draw new pictures: it was trained by paradigm 'autoencoder'/],
  ]);
  // Of what it has learned it can be asked.
  const probed = await run(['eval', 'blind', '--json']);
  assert.equal(probed.code, 0, probed.stderr);
  const report = JSON.parse(probed.stdout) as { latent: { effectiveRank: number }; probes: { linear: number }; samples?: unknown };
  assert.ok(report.latent.effectiveRank > 1 && report.probes.linear >= 0.5 && !('samples' in report));
  assert.match(
    (await run(['eval', 'blind'])).stdout,
    /^latent +effective rank [\s\S]*^encoder .* by a linear probe[\s\S]*^no decoder, so no samples: averaged/m,
  );
  // The second stage of latent diffusion brings the first one's network with it.
  const second = await run([
    ...TOY,
    '--data',
    'pictures',
    '--out',
    'second',
    '--set',
    'objective.paradigm=latent-diffusion',
    '--set',
    'objective.frozen=coder',
    '--set',
    'model.width=16', // it shares a latent with the first, not a size
    '--quiet',
  ]);
  assert.equal(second.code, 0, second.stderr);
  assert.equal((await run(['sample', 'second', '--count', '2', '--out', 'second.png'])).code, 0);
  const paradigm = ['--set', 'objective.paradigm=latent-diffusion', '--set'];
  await refuse(2, [
    [
      train(...paradigm, 'objective.frozen=blind'),
      /objective\.frozen: 'blind' was trained by paradigm 'self-distillation' and has no decoder/,
    ],
    [
      train(...paradigm, 'objective.frozen=coder', '--set', 'model.latent=4'),
      /'coder' has model\.latent 8, and this run 4: .*--set model\.latent=8/,
    ],
    [train(...paradigm, 'objective.frozen=coder', '--set', 'data.image=32'), /'coder' has data\.image 16, and this run 32/],
  ]);
});

test('--device cuda without a GPU says what was found', async () => {
  await refuse(2, [
    [train('--device', 'cuda'), /--device cuda: libtorch .*(built for the CPU only|no GPU or driver was found).*--device cpu/],
    [['sample', 'run', '--device', 'cuda:1'], /--device cuda:1: libtorch/],
  ]);
});

test('a full disk, or a limit on files, ends a run with exit 1 and leaves no half file', async () => {
  // 16 blocks of 512 bytes: enough for settings and metrics, not for weights.
  const { code, stderr } = await run([...TOY, '--data', 'pictures', '--out', 'limited'], { shell: 'ulimit -f 16; exec "$@"' });
  assert.match(stderr, /cannot write limited\/model\.safetensors: .*(ulimit -f|disk is full)/);
  assert.equal(code, 1);
  assert.deepEqual(readdirSync(at('limited')).sort(), ['config.json', 'grids', 'metrics.jsonl']);
  const full = await run(['info', 'run'], { shell: '"$@" > /dev/full' });
  assert.deepEqual([full.code, full.stderr], [1, 'error: cannot write the result to standard output: the disk is full\n']);
});

test('a reader that goes away ends the command quietly', async () => {
  const { code, stdout, stderr } = await run(['info', 'run'], { shell: '{ "$@"; echo "rc=$?" >&2; } | head -n 1' });
  assert.deepEqual([code, stdout.split('\n').length, stderr], [0, 2, 'rc=0\n']);
});

test('an engine that was never built: what needs none works, what does says what to run, doctor exits 1', async () => {
  // The program without its build/ folder.
  const root = at('copy');
  mkdirSync(join(root, 'dist'), { recursive: true });
  cpSync(dirname(dirname(MAIN)), join(root, 'dist', 'src'), { recursive: true });
  const home = new URL('../../../', import.meta.url);
  cpSync(new URL('package.json', home), join(root, 'package.json'));
  symlinkSync(new URL('node_modules', home), join(root, 'node_modules'));
  const main = join(root, 'dist', 'src', 'cli', 'main.js');
  const info = await run(['info', 'run'], { main });
  assert.equal(info.code, 0, info.stderr);
  const sample = await run(['sample', 'run'], { main });
  assert.equal(sample.code, 1);
  assert.match(sample.stderr, /^error: the engine has not been built .*npm run setup/);
  const doctor = await run(['doctor'], { main });
  assert.equal(doctor.code, 1);
  assert.match(doctor.stdout, /^bad +engine +the engine has not been built/m);
  assert.match(doctor.stdout, /^ok +sharp/m);
});

test('Ctrl-C or SIGTERM: the step is finished, all is kept, exit 75, and the run goes on from there', async () => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    const out = `stopped-${signal}`;
    const running = start([...TOY, '--data', 'pictures', '--out', out, '--set', 'train.images=10000000'], { cwd: folder });
    await running.said('\nrun ');
    running.kill(signal);
    const { code, stderr } = await running.ended;
    assert.equal(code, 75, stderr);
    assert.match(stderr, new RegExp(`${signal}: finishing the step and saving`));
    assert.match(
      stderr,
      new RegExp(`stopped after [\\d,]+ of 10,000,000 pictures; nothing is lost\\. To go on: node \\S+main\\.js train --resume ${out}\n$`),
    );
    assert.equal((await run(['info', out])).code, 0);
    const stopped = Number(/stopped after ([\d,]+)/.exec(stderr)?.[1]?.replaceAll(',', ''));
    const further = await run(['train', '--resume', out, '--set', `train.images=${stopped + 32}`]);
    assert.equal(further.code, 0, further.stderr);
    assert.match(further.stdout, new RegExp(`^trained +${(stopped + 32).toLocaleString('en')} pictures, 32 of them now,`, 'm'));
  }
});

test('a second signal ends at once, even while the engine computes', async () => {
  // A step that takes seconds. The first signal comes while its many pictures are decoded; where a busy machine is late with it, it is tried again.
  const settings = [
    'train.images=10000000',
    'train.batch=512',
    'train.microBatch=128',
    'model.width=256',
    'model.depth=8',
    'model.heads=4',
  ];
  for (let attempt = 0; ; attempt++) {
    const out = `twice-${attempt}`;
    const words = ['train', '--preset', 'toy', '--data', 'pictures', '--out', out, ...settings.flatMap((set) => ['--set', set])];
    const running = start(words, { cwd: folder });
    await running.said('\nrun ');
    running.kill('SIGTERM');
    await running.said('SIGTERM: finishing the step');
    const again = setInterval(() => running.kill('SIGTERM'), 200); // the first one's handler may not have left yet
    const { code, signal } = await running.ended;
    clearInterval(again);
    assert.ok(existsSync(at(out, 'config.json')));
    if (signal === 'SIGTERM' || code === 143) return;
    assert.ok(code === 75 && attempt < 4, `${code} ${signal}`);
  }
});

test('a signal before the first step ends the run at once, and nothing is written', async () => {
  const running = start(['train', '--preset', 'toy', '--set', 'data.workers=0', '--set', 'data.image=256', '--out', 'early'], {
    cwd: folder,
  });
  // Drawing the emoji at this size takes a minute; nothing is said of it in the first ten seconds, so time alone is waited for.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  running.kill('SIGINT');
  const { code, stderr } = await running.ended;
  assert.equal(code, 75, stderr);
  assert.match(stderr, /stopped before the first step; nothing was written\n$/);
  assert.ok(!existsSync(at('early')));
});

test('training that diverges says so, and what to change', async () => {
  const wild = ['--data', 'pictures', '--quiet', '--set', 'train.learningRate=1e30'];
  const long = await run([...TOY, ...wild, '--out', 'wild', '--set', 'train.images=1600']);
  assert.equal(long.code, 1);
  assert.match(
    long.stderr,
    /the gradient was not finite in \d+ steps in a row.*No checkpoint had been made yet\. Lower train\.learningRate/,
  );
  const lines = readFileSync(at('wild', 'metrics.jsonl'), 'utf8').trim().split('\n');
  assert.equal((JSON.parse(lines.at(-1) as string) as { effectiveRank: unknown }).effectiveRank, null);
  const short = await run([...TOY, ...wild, '--out', 'wilder']);
  assert.equal(short.code, 1);
  assert.match(short.stderr, /no effective rank: .* not finite.*the network has diverged\. Train it with a lower train\.learningRate/);
});
