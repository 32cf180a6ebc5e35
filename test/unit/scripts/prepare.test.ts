/** What scripts/prepare.sh does to the machine besides installing packages: nothing. */

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { tryRun } from '../../support/run.ts';

const root = join(import.meta.dirname, '../../..');
const units = '/etc/systemd/system';
const wants = `${units}/multi-user.target.wants`;
const policy = '/usr/sbin/policy-rc.d';
const unit = '[Service]\nExecStart=true\n[Install]\nWantedBy=multi-user.target\n';

/** Directories above those of the machine, which a script may change. */
class Layer {
  private readonly directory = mkdtempSync(join(tmpdir(), 'cni-prepare-'));

  constructor(t: ExecutionContext) {
    t.teardown(() => rmSync(this.directory, { recursive: true }));
    for (const name of ['etc', 'usr/sbin', 'work/etc', 'work/usr/sbin'])
      mkdirSync(this.at(name), { recursive: true });
    mkdirSync(this.at(wants), { recursive: true });
  }

  at(path: string): string {
    return join(this.directory, path);
  }

  write(path: string, text: string): void {
    mkdirSync(dirname(this.at(path)), { recursive: true });
    writeFileSync(this.at(path), text, { mode: 0o755 });
  }

  has(path: string): boolean {
    return existsSync(this.at(path));
  }

  /**
   * Installs packages, all of which are missing.
   * @param ending what apt-get does after it has enabled a service, as Debian's packages do.
   * @returns exit code.
   */
  async install(ending = ''): Promise<number | string> {
    this.write('bin/dpkg-query', '#!/bin/sh\necho not-installed\n');
    const apt = `#!/bin/sh
      [ "$2" = install ] || exit 0
      ${policy}; echo $? > ${this.at('policy')}
      printf '${unit.replaceAll('\n', '\\n')}' > ${units}/new.service
      ln -s ../new.service ${wants}/new.service
      ${ending}`;
    this.write('bin/apt-get', apt);
    const mounts = ['/etc', '/usr/sbin'].map(
      (path) =>
        `mount -t overlay -o lowerdir=${path},upperdir=$1${path},workdir=$1/work${path} none ${path}\n`,
    );
    const script = `set -e
      ${mounts.join('')}
      . ${root}/scripts/prepare.sh
      PATH=$1/bin:$PATH
      install_packages run`;
    // A session of its own, whose group can be interrupted as by the keyboard.
    const argv = ['setsid', '--wait', 'unshare', '--mount', 'bash', '-c', script, 'bash', this.directory];
    // systemctl changes files alone, also on a machine that systemd has booted.
    return (await tryRun(argv, { env: { SYSTEMD_OFFLINE: '1' } })).exit;
  }
}

test('services of what is installed are neither started nor enabled', async (t) => {
  const layer = new Layer(t);
  t.is(await layer.install(), 0);
  t.is(readFileSync(layer.at('policy'), 'utf8'), '101\n');
  t.false(layer.has(policy));
  t.true(layer.has(`${units}/new.service`));
  t.false(layer.has(`${wants}/new.service`));
});

for (const [how, ending] of [
  ['fails', 'exit 100'],
  ['is interrupted', 'kill -INT 0'],
] as const)
  test(`an installation that ${how} leaves nothing behind, and ends the script`, async (t) => {
    const layer = new Layer(t);
    t.not(await layer.install(ending), 0);
    t.true(layer.has(`${units}/new.service`));
    t.false(layer.has(policy));
    t.false(layer.has(`${wants}/new.service`));
  });

test("the machine's own policy stays, and so does what was enabled before", async (t) => {
  const layer = new Layer(t);
  layer.write(policy, '#!/bin/sh\nexit 104\n');
  layer.write(`${units}/old.service`, unit);
  symlinkSync('../old.service', layer.at(`${wants}/old.service`));
  t.is(await layer.install(), 0);
  t.is(readFileSync(layer.at('policy'), 'utf8'), '104\n');
  t.true(layer.has(policy));
  t.true(layer.has(`${wants}/old.service`));
});
