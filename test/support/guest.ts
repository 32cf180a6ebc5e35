/**
 * Guests with another kernel. Where the running kernel may lack a kind of interface (VLAN, VRF, ipvlan, dummy,
 * bridge VLAN filtering), User Mode Linux has it: Debian's package of a kernel that runs as an ordinary
 * process. A guest sees the same file system, but for /run, /dev, /proc and /sys.
 */

import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onOneProcessor } from './one-processor.ts';
import { cleanEnv } from './run.ts';

/** Directory that the guest reports to, set only within the guest. */
export const guestDirectory = process.env.GUEST_DIR;

/** One guest, which runs one command. */
export class Guest {
  /** Holds `output`, what the command printed; `status`, its exit code; `console`, what the kernel said. */
  readonly directory = mkdtempSync(join(tmpdir(), 'guest-'));

  /**
   * Runs the kernel from start to power-off.
   * @param argv the command that it runs as root, with an absolute path.
   * @param seconds after which it is killed.
   */
  async run(argv: readonly string[], seconds: number): Promise<void> {
    const { directory } = this;
    writeFileSync(join(directory, 'command'), argv.map((arg) => `${arg}\0`).join(''));
    const child = spawn(
      // The guest ends with this process.
      'setpriv',
      [
        ...['--pdeathsig', 'TERM', '--', 'timeout', '--kill-after=5', String(seconds)],
        ...[...onOneProcessor(), kernel()],
        ...['rootfstype=hostfs', 'rootflags=/', 'rw', 'mem=1G', 'quiet'],
        ...[`init=${join(import.meta.dirname, 'uml-init')}`, `GUEST_DIR=${directory}`],
        ...[`uml_dir=${directory}`, 'umid=guest', 'con=null', 'con0=null,fd:1'],
      ],
      { env: cleanEnv, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk) => appendFileSync(join(directory, 'console'), chunk));
    await new Promise((resolve, reject) => child.on('close', resolve).on('error', reject));
  }

  /** Reads a file of the directory; "" when there is none. */
  read(name: string): string {
    const path = join(this.directory, name);
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  /** Removes the directory. */
  remove(): void {
    rmSync(this.directory, { recursive: true });
  }
}

/**
 * The kernel, patched for this machine's processor. Debian's build passes ptrace(2) a buffer of exactly 2,696
 * bytes for the registers, which fails where the processor has more (AMX: 11,008). It does no harm to claim a
 * longer buffer, so the length in the one instruction that matters is raised.
 * @returns the path of a copy below build/.
 */
function kernel(): string {
  const copy = join(import.meta.dirname, '../../build/linux.uml');
  if (existsSync(copy)) return copy;
  const image = readFileSync('/usr/bin/linux.uml');
  // movq $2696, -8(%rbp); mov $PTRACE_SETREGSET, %edi
  const instructions = Buffer.from('48c745f8880a0000bf05420000', 'hex');
  const at = image.indexOf(instructions);
  if (at >= 0) image.writeUInt32LE(16384, at + 4);
  writeFileSync(`${copy}.${process.pid}`, image, { mode: 0o755 });
  renameSync(`${copy}.${process.pid}`, copy);
  return copy;
}
