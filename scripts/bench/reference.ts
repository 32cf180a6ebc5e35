/** The reference plugins to compare with: the newest that Debian has, without installing it. */

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { cachedPackage } from '../debian.ts';

const name = 'containernetworking-plugins';

/** Where the reference plugins are, and what to call them. */
export interface Reference {
  directory: string;
  description: string;
}

/** Finds the plugins of $CNI_REFERENCE, else those of Debian's unstable suite, else the installed ones. */
export function findReference(): Reference {
  const named = process.env.CNI_REFERENCE;
  if (named) return { directory: named, description: `the plugins in ${named}` };
  try {
    const found = cachedPackage(name, { suite: 'sid' });
    return {
      directory: join(found.directory, 'usr/lib/cni'),
      description: `Debian's ${name} ${found.version}`,
    };
  } catch (error) {
    console.log(`${(error as Error).message}. The installed reference plugins are compared with\n`);
    const version = execFileSync('dpkg-query', ['--show', `--showformat=\${Version}`, name], {
      encoding: 'utf8',
    });
    return { directory: '/usr/lib/cni', description: `Debian's ${name} ${version}` };
  }
}
