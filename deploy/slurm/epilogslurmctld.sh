#!/bin/bash
# Installed as /etc/slurm/rooflight-epilogslurmctld.sh on Slurm's controller, with
# EpilogSlurmctld=/etc/slurm/rooflight-epilogslurmctld.sh in slurm.conf; or called by the one there is.
# Notes that a job ended; a process of its own then writes what the job did into its AdminComment.
# Prints nothing, takes 2 seconds at most and always ends well, whatever is missing or hangs.
# Settings, exported by /etc/rooflight/hook.conf: see deploy/PRIVACY.md.

hook() {
  local settings=${ROOFLIGHT_HOOK_CONF:-/etc/rooflight/hook.conf} file
  # shellcheck source=/dev/null
  [ ! -r "$settings" ] || . "$settings"
  local home=${ROOFLIGHT_HOME:-/opt/rooflight} folder=${ROOFLIGHT_ENDED:-/var/spool/rooflight}
  file=$folder/$EPOCHSECONDS-$SLURM_JOB_ID
  printf '{"jobid":"%s","array":"%s","task":"%s","het":"%s","offset":"%s","hosts":"%s","end_seconds":"%s"}\n' \
    "$SLURM_JOB_ID" "$SLURM_ARRAY_JOB_ID" "$SLURM_ARRAY_TASK_ID" "$SLURM_HET_JOB_ID" \
    "$SLURM_HET_JOB_OFFSET" "$SLURM_JOB_NUM_NODES" "$EPOCHSECONDS" >"$file.new"
  mv "$file.new" "$file.json"
  flock --nonblock "$folder/lock" true || return 0  # one is at work, and will see the file
  find "$folder" -maxdepth 1 -name '[0-9]*' -mtime +0 -delete  # of a day in which none could work
  setsid --fork timeout --kill-after=5 1h "$home/bin/rooflight" job comment "$folder" 2>"$folder/log"
}

trap 'exit 0' EXIT
exec </dev/null >/dev/null 2>&1
PATH=/usr/sbin:/usr/bin:/sbin:/bin
hook &  # a process of its own: a dead file system may hold it for ever, but not Slurm
sleep 2 &
wait -n
kill -9 %1 %2
