/** An IPAM plugin that a test can keep waiting, to do something else meanwhile. */

import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import type { Host } from './host.ts';

/**
 * Makes an IPAM plugin "slow" that takes its time: it waits for the file "go" before it answers ADD, and
 * notes each verb.
 * @returns its directory on the host, which has these files.
 */
export function makeSlowIpam(host: Host): string {
  const directory = '/run/slow';
  mkdirSync(host.file(directory));
  const script = `#!/bin/sh
cat >/dev/null
echo $CNI_COMMAND >>${directory}/verbs
[ $CNI_COMMAND = ADD ] || exit 0
echo $$ >${directory}/waiting
i=0; while [ ! -e ${directory}/go ]; do sleep 0.02; i=$((i + 1)); [ $i -lt 3000 ] || exit 1; done
echo '{"cniVersion":"1.1.0","ips":[{"address":"10.33.0.99/24"}]}'
`;
  writeFileSync(host.file(`${directory}/slow`), script);
  chmodSync(host.file(`${directory}/slow`), 0o755);
  return directory;
}
