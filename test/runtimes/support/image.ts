/**
 * Container images without a registry: busybox and a few files, in the archive format that `docker save`
 * writes and that containerd and podman import. Source: Docker Image Specification v1.2.0, "Combined image
 * JSON + filesystem changeset format".
 */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Node } from './node.ts';

/**
 * Makes an image in which busybox is every command.
 * @param path of the archive, in the node.
 * @param name with tag.
 * @param entrypoint what a container of it runs.
 * @param files contents by path below the image's root.
 * @param copies programs of the machine, together with the libraries that they are linked to, and
 *   directories, by the path below the image's root where they are to be.
 */
export async function makeImage(
  node: Node,
  path: string,
  name: string,
  entrypoint: readonly string[],
  files: Readonly<Record<string, string>>,
  copies: Readonly<Record<string, string>> = {},
): Promise<void> {
  const build = `${path}.build`;
  for (const [file, content] of Object.entries(files)) node.write(`${build}/root/${file}`, content);
  await node.run([
    'sh',
    '-c',
    `cd "$1/root" && mkdir -p bin etc proc sys dev tmp run
     for applet in $(busybox --list); do ln -s busybox bin/$applet; done
     cp --remove-destination /bin/busybox bin/
     while [ $# -gt 1 ]; do
       mkdir -p "$(dirname "./$2")"
       cp -a "$3" "./$2"
       [ -d "$3" ] || ldd "$3" | grep -o '/[^ ]*' | xargs -r cp -L --parents -t .
       shift 2
     done
     tar --numeric-owner --owner=0 --group=0 -cf ../layer.tar .`,
    'sh',
    build,
    ...Object.entries(copies).flat(),
  ]);
  const layer = createHash('sha256')
    .update(readFileSync(node.file(`${build}/layer.tar`)))
    .digest('hex');
  node.write(`${build}/config.json`, {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: { Env: ['PATH=/usr/sbin:/usr/bin:/bin'], Entrypoint: entrypoint },
    rootfs: { type: 'layers', diff_ids: [`sha256:${layer}`] },
  });
  node.write(
    `${build}/manifest.json`,
    JSON.stringify([{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }]),
  );
  await node.run(['tar', '-C', build, '-cf', path, 'manifest.json', 'config.json', 'layer.tar']);
}

/**
 * Asks for a web page from inside a container; {@link pageOf} has the answer. busybox-static's wget crashes
 * looking up "http".
 */
export function browseCommand(address: string, port: number): string[] {
  const script = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30 "$1" "$2"`;
  return ['sh', '-c', script, 'sh', address, String(port)];
}

/** The body of an HTTP answer. */
export function pageOf(answer: string): string {
  return answer.slice(answer.indexOf('\r\n\r\n') + 4).trim();
}
