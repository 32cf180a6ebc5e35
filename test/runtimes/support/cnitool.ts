/**
 * cnitool, libcni's own client. No Debian package has the program, but the source package of libcni does, and
 * Debian's Go compiler builds it without further modules.
 */

import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../../support/host.ts';
import { suites } from '../../support/plugin.ts';
import { type Output, run } from '../../support/run.ts';

const sourcePackage = 'golang-github-appc-cni';
const importPath = 'github.com/containernetworking/cni';
const directory = join(import.meta.dirname, '../../../build/cnitool');

/** Builds cnitool unless that was done before. @returns its path. */
export async function buildCnitool(): Promise<string> {
  const executable = join(directory, 'cnitool');
  if (existsSync(executable)) return executable;
  const gopath = join(directory, 'go');
  const source = join(gopath, 'src', importPath);
  mkdirSync(source, { recursive: true });
  const archive = await downloadSource();
  await run(['tar', '--strip-components=1', '-C', source, '-xf', archive]);
  const env = {
    GO111MODULE: 'off',
    GOPATH: gopath,
    GOCACHE: join(directory, 'cache'),
    GOFLAGS: '-buildvcs=false',
    CGO_ENABLED: '0',
  };
  await run(['go', 'build', '-o', `${executable}.new`, `${importPath}/cnitool`], { env, timeout: 120_000 });
  renameSync(`${executable}.new`, executable);
  return executable;
}

/**
 * Fetches the source package, with a list of sources beside the machine's own.
 * @returns the path of its archive.
 */
async function downloadSource(): Promise<string> {
  const format = '$(LABEL) $(REPO_URI) $(CODENAME)';
  const targets = await run(['apt-get', 'indextargets', '--format', format, 'Created-By: Packages']);
  const debian = targets.split('\n').find((line) => line.startsWith('Debian '));
  if (!debian) throw new Error('apt knows no Debian archive. Run "apt-get update"');
  const [, uri, codename] = debian.split(' ');
  const list = join(directory, 'sources.list');
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  writeFileSync(list, `deb-src [signed-by=${keyring}] ${uri} ${codename} main\n`);
  mkdirSync(join(directory, 'lists/partial'), { recursive: true });
  const apt = async (...argv: string[]) => {
    const options = {
      'Dir::Etc::SourceList': list,
      'Dir::Etc::SourceParts': '/dev/null',
      'Dir::State::Lists': join(directory, 'lists'),
      'APT::Sandbox::User': 'root',
    };
    const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
    await run(['env', '--chdir', directory, 'apt-get', '-qq', ...flags, ...argv]);
  };
  await apt('update');
  await apt('source', '--download-only', sourcePackage);
  const archive = readdirSync(directory).find((file) => file.includes('.orig.tar.'));
  return join(directory, archive!);
}

/** Either of the two programs that run a network by hand with the same arguments and environment. */
export class NetworkTool {
  private readonly host: Host;
  private readonly executable: string;

  constructor(host: Host, executable: string) {
    this.host = host;
    this.executable = executable;
  }

  /**
   * Runs a verb on a network of /etc/cni/net.d.
   * @param capabilities what becomes runtimeConfig, such as portMappings.
   */
  try(verb: 'add' | 'check' | 'del', network: string, netns: string, capabilities?: object): Promise<Output> {
    return this.host.tryRun([this.executable, verb, network, netns], {
      env: {
        CNI_PATH: suites.ours,
        NETCONFPATH: '/etc/cni/net.d',
        ...(capabilities && { CAP_ARGS: JSON.stringify(capabilities) }),
      },
    });
  }

  /** The same, and it must succeed. @returns standard output. */
  async run(...args: Parameters<NetworkTool['try']>): Promise<string> {
    const output = await this.try(...args);
    if (output.exit !== 0)
      throw new Error(`${output.argv.join(' ')}: exit ${output.exit}\n${output.stderr}${output.stdout}`);
    return output.stdout;
  }
}
