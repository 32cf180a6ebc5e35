/** Source packages of Debian, for programs that no Debian package has built. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../support/run.ts';

/**
 * Fetches a source package, with a list of sources of its own besides the machine's.
 * @param directory where its archives and its .dsc file are afterwards; made if it is missing.
 * @throws Error when it cannot be had.
 */
export async function downloadSource(sourcePackage: string, directory: string): Promise<void> {
  const format = '$(LABEL) $(REPO_URI) $(CODENAME)';
  const targets = await run(['apt-get', 'indextargets', '--format', format, 'Created-By: Packages']);
  const debian = targets.split('\n').find((line) => line.startsWith('Debian '));
  if (!debian) throw new Error('apt knows no Debian archive. Run "apt-get update"');
  const [, uri, codename] = debian.split(' ');
  const list = join(directory, 'sources.list');
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  mkdirSync(join(directory, 'lists/partial'), { recursive: true });
  writeFileSync(list, `deb-src [signed-by=${keyring}] ${uri} ${codename} main\n`);
  const apt = async (...argv: string[]) => {
    const options = {
      'Dir::Etc::SourceList': list,
      'Dir::Etc::SourceParts': '/dev/null',
      'Dir::State::Lists': join(directory, 'lists'),
      'APT::Sandbox::User': 'root',
    };
    const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
    await run(['env', '--chdir', directory, 'apt-get', '-qq', ...flags, ...argv], { timeout: 300_000 });
  };
  await apt('update');
  await apt('source', '--download-only', sourcePackage);
}

/** The environment in which Debian's Go compiler builds offline in a GOPATH below a directory. */
export function goEnvironment(directory: string): NodeJS.ProcessEnv {
  return {
    GO111MODULE: 'off',
    GOPATH: join(directory, 'go'),
    GOCACHE: join(directory, 'cache'),
    GOFLAGS: '-buildvcs=false',
    CGO_ENABLED: '0',
  };
}
