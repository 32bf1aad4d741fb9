// SPDX-License-Identifier: Apache-2.0
// include/spectral/data/conversation_batches.hpp: samples of conversations as batches, step types in turn or as they
// come
#pragma once
#include <spectral/data/conversations.hpp>
#include <spectral/data/epoch_order.hpp>
#include <spectral/models/batch.hpp>

namespace spectral {

// Which tokens are targets: the sample's own answer, so that each turn counts once per epoch; or every token.
enum class loss_on { answer, everything };

// A sample as a model reads it.
struct conversation_sample {
    std::vector<row_index> ids, targets;  // targets: the next token, or -1 where there is no loss
    index prompt_length = 0;
    std::string step_type;
};

// Sample `number` of the data with its targets.
inline conversation_sample sample_of(const conversation_data& data, index number, loss_on loss = loss_on::answer) {
    const assistant_turn& turn = data.turns[static_cast<std::size_t>(number)];
    const auto& ids = data.conversations[static_cast<std::size_t>(turn.conversation)].ids;
    conversation_sample s;
    s.step_type = turn.step_type;
    s.prompt_length = turn.prompt_length();
    s.ids.assign(ids.begin(), ids.begin() + turn.head);
    s.ids.insert(s.ids.end(), ids.begin() + turn.begin, ids.begin() + turn.end);
    s.targets.assign(s.ids.size(), -1);
    const index first = loss == loss_on::answer ? s.prompt_length - 1 : 0;  // the row that predicts the first target
    std::copy(s.ids.begin() + first + 1, s.ids.end(), s.targets.begin() + first);
    return s;
}

// How samples become batches.
struct conversation_batch_options {
    index batch = 16;
    std::uint64_t seed = 0;
    loss_on loss = loss_on::answer;
    bool balanced = false;  // step types take turns, each through epochs of its own
    std::string task = "conversations";
};

// Every sample once per epoch, in a new order each time. Evaluation reads them once, in the order of the file.
class conversation_batches {
public:
    conversation_batches(conversation_data data, conversation_batch_options options)
        : data_(std::move(data)), o_(std::move(options)) {
        check(
            !data_.turns.empty(), data_.name, "samples: expected at least one, found none",
            data_.left_out > 0 ? ": " + std::to_string(data_.left_out) + " are longer than the limit" : std::string());
        check(o_.batch > 0, data_.name, "batches: expected a batch of at least 1, found ", o_.batch);
        std::map<std::string, std::vector<index>> by_type;
        for (std::size_t n = 0; n < data_.turns.size(); ++n)
            by_type[o_.balanced ? data_.turns[n].step_type : ""].push_back(static_cast<index>(n));
        for (auto& [type, numbers] : by_type) {
            orders_.emplace_back(static_cast<index>(numbers.size()), o_.seed, "conversations " + type);
            numbers_.push_back(std::move(numbers));
        }
    }

    const conversation_data& data() const { return data_; }
    const conversation_batch_options& options() const { return o_; }
    index samples() const { return static_cast<index>(data_.turns.size()); }

    batch batch_at(index step) const {
        check(step >= 0, data_.name, "step: expected at least 0, found ", step);
        // sample p of the run is of group p mod G: within a batch the groups take turns
        const auto groups = static_cast<index>(numbers_.size());
        const index first = step * o_.batch;
        std::vector<index> chosen(static_cast<std::size_t>(o_.batch));
        for (index g = 0; g < groups; ++g) {
            const index before = (first + groups - 1 - g) / groups,
                        after = (first + o_.batch + groups - 1 - g) / groups;
            index p = before;
            orders_[static_cast<std::size_t>(g)].visit(before, after - before, [&](index n) {
                chosen[static_cast<std::size_t>(p * groups + g - first)] =
                    numbers_[static_cast<std::size_t>(g)][static_cast<std::size_t>(n)];
                ++p;
            });
        }
        return make(chosen);
    }

    index evaluation_batches() const { return (samples() + o_.batch - 1) / o_.batch; }
    batch evaluation_at(index number) const {
        check(number >= 0 && number < evaluation_batches(), data_.name, "evaluation batch: expected 0 to ",
              evaluation_batches() - 1, ", found ", number);
        std::vector<index> numbers;
        for (index n = number * o_.batch; n < std::min((number + 1) * o_.batch, samples()); ++n) numbers.push_back(n);
        return make(numbers);
    }

private:
    batch make(const std::vector<index>& numbers) const {
        batch b;
        b.task = o_.task;
        for (index n : numbers) {
            conversation_sample s = sample_of(data_, n, o_.loss);
            b.lengths.push_back(static_cast<index>(s.ids.size()));
            b.ids.insert(b.ids.end(), s.ids.begin(), s.ids.end());
            b.targets.insert(b.targets.end(), s.targets.begin(), s.targets.end());
            b.prompt_lengths.push_back(s.prompt_length);
            b.step_types.push_back(std::move(s.step_type));
        }
        return b;
    }

    conversation_data data_;
    conversation_batch_options o_;
    std::vector<epoch_order> orders_;  // one per group: all samples, or one group per step type
    std::vector<std::vector<index>> numbers_;
};

}  // namespace spectral
