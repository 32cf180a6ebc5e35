/**
 * Kubernetes itself. No Debian package has the programs, but its source package is complete, and Debian's Go
 * compiler builds it without further modules. The programs are kept in build/kubernetes/bin.
 */

import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { downloadSource, goEnvironment } from '../../test/runtimes/support/source-package.ts';
import { run } from '../../test/support/run.ts';

const directory = join(import.meta.dirname, '../../build/kubernetes');
const bin = join(directory, 'bin');
const importPath = 'k8s.io/kubernetes';
const programs = [
  'kubelet',
  'kube-proxy',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubectl',
] as const;

/**
 * A package whose version in the source breaks with Go 1.18 and later; Debian has a newer one in a package of
 * its own. Source: https://github.com/modern-go/reflect2/issues/26.
 */
const reflectionPath = 'github.com/modern-go/reflect2';
const reflection = join('/usr/share/gocode/src', reflectionPath);

/** The programs of Kubernetes that the cluster runs. */
export type Program = (typeof programs)[number];

/** What `kubectl version` and the nodes report, which a build by hand does not know. */
const version = 'v1.20.2';

/** Where a program of Kubernetes is once it has been built. */
export function programPath(program: Program): string {
  return join(bin, program);
}

/**
 * Builds the programs that are missing.
 * @param say is told what is about to be done.
 */
export async function buildKubernetes(say: (step: string) => void): Promise<void> {
  const missing = programs.filter((program) => !existsSync(programPath(program)));
  if (missing.length === 0) return;
  const env = goEnvironment(directory);
  const source = join(env.GOPATH!, 'src', importPath);
  if (!existsSync(source)) {
    say('Fetching the source of Kubernetes');
    await downloadSource('kubernetes', directory);
    const description = readdirSync(directory).find((file) => file.endsWith('.dsc'));
    mkdirSync(dirname(source), { recursive: true });
    await run(['dpkg-source', '--no-check', '--extract', join(directory, description!), `${source}.new`]);
    rmSync(`${source}.new/vendor/${reflectionPath}`, { recursive: true });
    await run([
      'cp',
      '--recursive',
      '--no-target-directory',
      reflection,
      `${source}.new/vendor/${reflectionPath}`,
    ]);
    renameSync(`${source}.new`, source);
  }
  mkdirSync(bin, { recursive: true });
  const go = async (output: string, path: string) => {
    const command = [
      'go',
      'build',
      '-ldflags',
      linkerFlags(),
      '-o',
      `${output}.new`,
      `${importPath}/${path}`,
    ];
    await run(command, { env, timeout: 7_200_000 });
    renameSync(`${output}.new`, output);
  };
  if (!existsSync(join(source, 'pkg/generated/openapi/zz_generated.openapi.go'))) {
    say('Generating the description of the API');
    const generator = join(directory, 'openapi-gen');
    await go(generator, 'vendor/k8s.io/kube-openapi/cmd/openapi-gen');
    await run(['sh', '-c', generateDescription, 'sh', source, generator], { env, timeout: 600_000 });
  }
  for (const program of missing) {
    say(`Building ${program} ${version}`);
    await go(programPath(program), `cmd/${program}`);
  }
  for (const left of ['go', 'cache', 'lists']) rmSync(join(directory, left), { recursive: true });
}

/** Sets the version, as hack/lib/version.sh does, and leaves out what only debuggers need. */
function linkerFlags(): string {
  const [major, minor] = version.slice(1).split('.');
  const values = { gitVersion: version, gitMajor: major, gitMinor: minor, gitTreeState: 'archive' };
  const packages = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'];
  const flags = packages.flatMap((path) =>
    Object.entries(values).map(([name, value]) => `-X ${importPath}/vendor/${path}.${name}=${value}`),
  );
  return ['-s', '-w', ...flags].join(' ');
}

/** What `make gen_openapi` does for the API server: it describes every package with the marker. */
const generateDescription = `set -e
  cd "$1"
  packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd staging/src vendor |
    grep -v -e code-generator -e sample-apiserver -e testdata -e kube-openapi | xargs -n 1 dirname |
    sed -e 's#^staging/src/#vendor/#' -e 's#^#${importPath}/#' | sort -u | paste -sd ,)
  exec "$2" -i "$packages" -p ${importPath}/pkg/generated/openapi -O zz_generated.openapi \\
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r /dev/null`;
