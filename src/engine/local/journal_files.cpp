// Journals as files, without a store: what celeriac verify and restore do.
#include "engine/engine.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"

namespace celeriac {

Result<JournalReport> verify_journal(
    const std::string& path,
    const std::function<void(std::uint64_t id, const JournalReport::Message&)>& each) {
  journal::LiveSet live;
  const Result<journal::Report> read = journal::verify(path, &live);
  if (!read) return read.status();
  const journal::Report& r = read.value();
  JournalReport report;
  report.segments = r.segments.size();
  report.records = r.records;
  report.messages = live.messages().size();
  report.queues = live.queues().size();
  report.next_number = r.next_lsn;
  report.synced = r.synced;
  report.damaged = r.damaged();
  for (const journal::Damage& d : r.damages) report.damages.push_back(d.text());
  for (const auto& [number, q] : live.queues()) {
    report.names.push_back({number, {q.name, q.config}});
  }
  for (const auto& [message, key] : live.keys()) {
    report.keys.push_back({message, key.fixed.queue, key.fixed.until, key.text});
  }
  if (!each) return report;
  Result<Fd> dir = open_plain_directory(path);
  if (!dir) return dir.status();
  const journal::Reader reader(dir.value().get(), path);
  journal::MessageReader messages(reader);
  for (const std::uint64_t id : live.ids()) {
    journal::WholeMessage m;
    Status found = messages.read(id, *live.find(id), &m);
    if (!found) return found;
    each(id, {m.fixed.queue, m.fixed.place, m.fixed.deliveries, m.fixed.state, m.fixed.priority,
              std::string(m.reason), std::string(m.headers), std::string(m.body)});
  }
  return report;
}

Status restore_journal(const std::string& directory, const std::string& backup, unsigned mode) {
  return journal::restore(directory, backup, mode);
}

}  // namespace celeriac
